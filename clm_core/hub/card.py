"""The model card of a run: what the model is, how it was trained, and its scores."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clm_core import durable
from clm_core.counts import with_noun
from clm_core.data.manifest import documents_read
from clm_core.errors import OutputError
from clm_core.hub.account import DatasetFacts
from clm_core.options import shown, to_flags
from clm_core.options.layers import DATA
from clm_core.paths import in_shell
from clm_core.record import ADAPTER, CARD, CURVE, Record, read_configuration, read_options, read_results
from clm_core.registry import list_backends
from clm_core.runs.changes import ELSEWHERE
from clm_core.runs.plot import draw_losses

NO_PART = ELSEWHERE | {"save_strategy", "save_steps", "save_total_limit", "logging_steps"}
"""The options that do not affect the model: they say where and when things are written, and how fast."""

SCORES = {
    "perplexity": "Perplexity",
    "loss": "Loss (nats per token)",
    "accuracy": "Accuracy",
    "bits_per_byte": "Bits per byte",
}
"""The metrics reported to the Hub, and their names there."""

ENDINGS = {
    "early_stopping": "early, because the evaluations did not get better",
    "time": "before its last step, because its time was up",
}
"""What ends a training by itself."""

_LICENSE = "apache-2.0"
"""Of a model that was trained on nothing but what comes with clm."""


def write_card(run: Path, repository: str, *, data: DatasetFacts, license: str | None = None) -> None:
    """Write the card of a run, with its curve, into the run's folder.

    `license` is that of the model; default: what the run's own options say.

    Raises:
        OutputError: the run has no result yet.
    """
    results, options = read_results(run), read_options(run)
    _draw(run / CURVE, results)
    options |= {"hub_license": license} if license else {}
    is_adapter = (run / ADAPTER).is_file()
    metadata = _metadata(results, options, repository, data, library="peft" if is_adapter else "transformers")
    kind = read_configuration(run).get("model_type", "")
    uses = ways_to_open(results["backend"], kind, repository, is_adapter=is_adapter)
    text = f"---\n{metadata}\n---\n\n{_body(results, options, uses, repository, data.license)}"
    durable.replace(run / CARD, text)


def set_license(run: Path, license: str) -> None:
    """Set the licence in the existing card of a run, which otherwise stays as it is.

    Raises:
        OutputError: the card cannot be read or written.
    """
    from huggingface_hub import metadata_load, metadata_save

    card = run / CARD
    try:
        metadata_save(card, {**(metadata_load(card) or {}), "license": license})
    except Exception as error:  # Of the YAML in it, which a person may have written.
        raise OutputError(f"hub_license {license}: cannot be put into {card}: {error}") from None


def remove_card(run: Path) -> None:
    """Remove the card of a run that is resumed, because it will no longer be true."""
    for name in (CARD, CURVE):
        durable.remove(run / name)


def training_options(options: Record) -> Record:
    """The options that the trained model depends on."""
    left_out = NO_PART - set(_with_a_part(options))
    return {name: value for name, value in options.items() if name not in left_out}


def ways_to_open(backend: str, model_type: str, repository: str, *, is_adapter: bool = False) -> list[str]:
    """How a model is opened, in Markdown: as every backend says that may have it, if models are of this one's kind."""
    found = [status.backend for status in list_backends() if status.backend]
    able = [one for one in found if one.has_model(model_type) is not False]
    ways = {one.name: one.opens_adapter if is_adapter else one.opens for one in able}
    command = f'```sh\nclm --backend {backend} generate --model-name-or-path {repository} "Once upon a time"\n```'
    readers = [way for way in ways.values() if way] if ways.get(backend) else []
    return [*(way.replace("{model}", repository) for way in readers), "From the command line:", command]


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _with_a_part(options: Record) -> Iterator[str]:
    """The ones of these that affect the model all the same; a resumption compares what follows from them instead."""
    yield "streaming"  # A stream is not read to its end, nor are documents held out of all of it.
    if options.get("packing") == "guide":
        yield "preprocessing_num_workers"  # The guide's rows are cut within what each process has.
    if not options.get("train_batch_size"):
        yield "nproc_per_node"  # A step has the batches of all devices.


def _draw(file: Path, results: Record) -> None:
    steps = [line for line in results["history"] if "loss" in line]
    scores = [line for line in results["history"] if "eval_loss" in line]
    lines = {
        "training": [(line["step"], line["loss"]) for line in steps],
        "validation": [(line["step"], line["eval_loss"]) for line in scores],
    }
    draw_losses(file, {label: points for label, points in lines.items() if points})


def _metadata(results: Record, options: Record, repository: str, data: DatasetFacts, *, library: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    after = results["after"]
    base = options.get("model_name_or_path")
    dataset = _dataset(options)
    evaluation = [
        EvalResult(
            task_type="text-generation",
            task_name="Causal language modeling",
            dataset_type=dataset or "text",
            dataset_name=f"{_data(options)}, documents held out",
            metric_type=name,
            metric_name=title,
            metric_value=after[name],
            verified=False,
        )
        for name, title in SCORES.items()
        if after and after[name] is not None
    ]
    metadata = ModelCardData(
        license=options.get("hub_license") or (_LICENSE if _is_sample(options) and not base else None),
        language=["en"] if _is_sample(options) else data.language or None,
        library_name=library,
        pipeline_tag="text-generation",
        tags=["clm", "causal-lm"],
        base_model=base if base and "/" in base else None,
        datasets=[dataset] if dataset else None,
        metrics=["perplexity", "accuracy"] if after else None,
        model_name=repository.split("/")[-1],
        eval_results=evaluation or None,
    )
    text: str = metadata.to_yaml()
    return text


def _body(results: Record, options: Record, uses: Sequence[str], repository: str, license: str | None) -> str:
    parts = [
        f"# {repository.split('/')[-1]}",
        _opening(results, options),
        table(("", ""), _facts(results, options, license)),
        "## Results",
        _scores(results),
        f"![Loss over the steps]({CURVE})",
        "## How to use it",
        *uses,
        "## What it was trained on",
        _ledger(results["ledger"]),
        "## How it was trained",
        "The options that differ from the defaults; this command repeats the training:",
        f"```sh\n{_command(results['backend'], training_options(options))}\n```",
        table(("version", ""), sorted(results["versions"].items())),
    ]
    return "\n\n".join(parts) + "\n"


def _opening(results: Record, options: Record) -> str:
    base = options.get("model_name_or_path")
    beside = "An adapter (LoRA) of " if options.get("lora_r") else ""
    origin = f"{beside}{_link(base)}, trained on" if base else "A causal language model, trained from scratch on"
    return f"{origin} {_data(options, link=True)} with clm, on the backend `{results['backend']}`."


def _facts(results: Record, options: Record, license: str | None) -> Iterable[tuple[str, str]]:
    base = options.get("model_name_or_path")
    yield "base model", _link(base) if base else f"none: `{options.get('model_type') or options.get('config_name')}`"
    yield "data", _data(options, link=True)
    yield "licence of the data", license or ("Apache-2.0, that of clm" if _is_sample(options) else "not known")
    yield (
        "trained",
        f"{with_noun(results['steps'], 'step')}, {results['epochs']:.2f} epochs, in {results['seconds']:,.0f} s",
    )
    if ended := results.get("stopped_by"):
        yield "ended", ENDINGS[ended]
    if best := results.get("best"):
        by = best["metric"].replace("_", " ")
        yield "best checkpoint", f"step {best['step']:,}, by the {by} on the documents held out"
    yield "tokens trained on", f"{results['tokens_trained']:,}, all epochs together"
    for line in results["history"]:
        if found := line.get("changed"):
            said = "; ".join(f"{name} from {shown(was)} to {shown(now)}" for name, (was, now) in found.items())
            yield f"changed after step {line['step']:,}", said


def _dataset(options: Record) -> str | None:
    """The name on the Hub of the training data, if it has one; prepared data may also be a folder."""
    prepared = options.get("prepared") or ""
    return options.get("dataset_name") or (prepared.split("@")[0] if "/" in prepared else None)


def _is_sample(options: Record) -> bool:
    return not any(options.get(name) for name in DATA)


def _data(options: Record, *, link: bool = False) -> str:
    """What the data is called."""
    if name := options.get("dataset_name"):
        split = options.get("dataset_split", "train")
        return f"[{name}](https://huggingface.co/datasets/{name}), `{split}`" if link else f"{name} {split}"
    files = [*options.get("train_file", ()), *options.get("validation_file", ())]
    return ", ".join(files) or options.get("prepared") or "the built-in sample of clm"


def _link(name: str) -> str:
    return f"[{name}](https://huggingface.co/{name})" if "/" in name else f"`{name}`"


def _scores(results: Record) -> str:
    before, after = results["before"], results["after"]
    if not after:
        return "The model was not evaluated."
    names = {
        "perplexity": "perplexity",
        "loss": "loss (nats per token)",
        "accuracy": "accuracy of the next token",
        "bits_per_byte": "bits per byte",
        "tokens_scored": "tokens scored",
    }
    rows = [(title, _figure(before and before[name]), _figure(after[name])) for name, title in names.items()]
    return "On the documents that were held out:\n\n" + table(("", "before", "after"), rows)


def _figure(value: Any) -> str:
    if value is None:
        return "not measured"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"


def _ledger(ledger: Mapping[str, Any]) -> str:
    rows = [
        (
            split,
            *(f"{counts[name]:,}" for name in ("documents", "tokens", "eos_added", "blocks", "tokens_dropped")),
        )
        for split, counts in ledger["splits"].items()
    ]
    head = ("split", "documents", "tokens", "EOS between documents", f"blocks of {ledger['block_size']}", "dropped")
    counts = documents_read(ledger["documents"])
    return f"{counts[0].upper()}{counts[1:]}.\n\n{table(head, rows)}"


def _command(backend: str, options: Record) -> str:
    """The options as flags, one on a line."""
    flags = [" ".join(map(in_shell, to_flags({name: value}))) for name, value in options.items()]
    return " \\\n    ".join([f"clm --backend {backend} train", *flags])
