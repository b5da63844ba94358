"""The verbs: prepare, train, evaluate and generate. Prepare the data, call the backend, write the results."""

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clm_core import checkpoints, endings, model_folder, options, output, prepared_on_hub, publishing, pushing
from clm_core.architectures import count_embeddings, count_positions
from clm_core.backend import Backend, BatchScored, EvaluationJob, Event, GenerationJob, Model, TrainingJob
from clm_core.config import (
    EvaluateConfig,
    GenerateConfig,
    PrepareConfig,
    TrainConfig,
)
from clm_core.curves import CurveWriter
from clm_core.decoding import continuation
from clm_core.errors import DataError, ModelError, OptionError, OutputError
from clm_core.ignored_fields import attention
from clm_core.installation import install_extra
from clm_core.merging import merge
from clm_core.places import is_path
from clm_core.prepared import TRAIN, VALIDATION, Prepared, documents_read
from clm_core.preprocessing import Listener, Recipe, check_blocks
from clm_core.preprocessing import prepare as prepare_data
from clm_core.pretrained import (
    SAMPLE,
    check_fits,
    load_architecture,
    load_ends,
    load_tokenizer,
    new_architecture,
)
from clm_core.progress import Progress
from clm_core.recorder import Recorder
from clm_core.redaction import without_credentials
from clm_core.remote import is_remote
from clm_core.requests import RUN_FILE, Request
from clm_core.results import EvaluationResult, GenerationResult, PreparationResult, Result, TrainingResult
from clm_core.schedule import Schedule
from clm_core.templates import template_of
from clm_core.tokenization import digest_tokenizer, encoder

LOCAL = ("train_file", "validation_file", "prepared", "model_name_or_path", "tokenizer_name", "config_name")
"""The options that may name something on this machine."""

WAYS = {
    TRAIN: "--train-file or --dataset-name",
    VALIDATION: "--validation-file, or a --validation-split-percentage above 0",
}
"""Where the documents of a split can come from."""


def prepare(config: PrepareConfig, progress: Progress) -> PreparationResult:
    """Tokenize data, or join parts that were tokenized elsewhere, into a folder that every backend reads."""
    folder = Path(config.output_dir) if config.output_dir else None
    publisher = pushing.data_publisher(config, progress)
    if config.merge:
        parts = [Path(part) for part in config.merge]
        prepared, reused = merge(parts, folder, overwrite=config.overwrite_cache, say=progress.say)
        progress.say(_prepared_line(prepared, config.block_size, "found joined" if reused else "joined"))
    else:
        _announce(config, progress)
        prepared, reused = _prepare(config, load_tokenizer(config), progress, folder)
    if prepared.shard is None:
        _say_if_short(prepared, config.block_size, progress)
    return PreparationResult(
        folder=prepared.folder,
        reused=reused,
        tokenizer_name=prepared.manifest.tokenizer_name,
        ledger=prepared.ledger(config.block_size),
        hub=publisher(prepared),
    )


def _say_if_short(prepared: Prepared, block_size: int, progress: Progress) -> None:
    """Say what lengths of a block there are enough tokens for; no preparation fails for it."""
    try:
        check_blocks(prepared, block_size, list(prepared.manifest.splits))
    except DataError as error:
        progress.say(f"for a training: {error}")


def train(request: Request[TrainConfig], progress: Progress) -> TrainingResult:
    """Train a model, validate it, and write it with all that belongs to it to the output folder."""
    config, backend = request.config, request.backend
    resume_from = _check_output(config)
    publisher = publishing.publisher(config, progress)
    _announce(config, progress)
    tokenizer = load_tokenizer(config)
    model = model_to_train(config, tokenizer, progress)
    attention(model.architecture, backend.name)  # Refused now, and not after the preparation.
    prepared = prepared_for(config, model, tokenizer, progress, need=TRAIN)
    schedule = Schedule.from_config(
        config,
        blocks=prepared.count(TRAIN, config.block_size).blocks,
        data=prepared.manifest.splits[TRAIN].sha256,
    )
    start = checkpoints.check_continues(resume_from, schedule, backend=backend.name) if resume_from else 0
    if resume_from and (writer := checkpoints.backend_of(resume_from)) != backend.name:
        progress.say(f"{resume_from} is of backend {writer}: all goes on but its dropout, which is drawn anew")
    with output.claimed(config, backend.name, resume_from) as claim:
        output.write(claim.folder / RUN_FILE, _run_file(request))
        recorder = _recorder(config, prepared, schedule, claim.folder, progress, resume_from, start)
        with publisher.following(claim.folder, recorder) as report, output.staging(claim.folder) as model_dir:

            def add_to_checkpoint(folder: Path) -> None:
                model_folder.complete(folder, tokenizer, model.architecture)
                recorder.add_to_checkpoint(folder)

            job = TrainingJob(
                model=model,
                train=prepared.blocks(TRAIN, config.block_size),
                validation=prepared.blocks(VALIDATION, config.block_size) if prepared.has(VALIDATION) else None,
                schedule=schedule,
                config=config,
                options=request.backend_options,
                output_dir=claim.folder,
                model_dir=model_dir,
                resume_from=resume_from,
                report=report,
                add_to_checkpoint=add_to_checkpoint,
            )
            try:
                with recorder.recording():
                    backend.train(job)
            finally:
                claim.begun = recorder.step > start
            model_folder.complete(model_dir, tokenizer, model.architecture)
        result = _result(backend, prepared, config, recorder, claim.folder)
        _write_result(result, claim.folder / output.RESULTS_FILE)
    with endings.of_run(claim.folder):
        return publisher.finish(result)


def evaluate(request: Request[EvaluateConfig], progress: Progress) -> EvaluationResult:
    """Score the validation split."""
    from clm_core.metrics import compute

    config, backend = request.config, request.backend
    if config.output_file:
        output.check_output_file(config.output_file)
    _announce(config, progress)
    model = _existing_model(config, progress, seed=config.seed)
    attention(model.architecture, backend.name)
    tokenizer = load_tokenizer(config)
    check_fits(model.architecture, tokenizer, config.block_size)
    prepared = prepared_for(config, model, tokenizer, progress, need=VALIDATION)
    blocks = prepared.blocks(VALIDATION, config.block_size)
    started = time.monotonic()
    with progress.bar("evaluating", len(blocks), "block") as bar:

        def report(event: Event) -> None:
            if isinstance(event, BatchScored):
                bar.advance(event.blocks)

        score = backend.evaluate(EvaluationJob(model=model, blocks=blocks, config=config, report=report))
    result = EvaluationResult(
        backend=backend.name,
        model=str(model.name_or_path),
        metrics=compute(score, bytes_per_token=prepared.bytes_per_token(VALIDATION)),
        ledger=prepared.ledger(config.block_size),
        seconds=time.monotonic() - started,
    )
    if config.output_file:
        _write_result(result, Path(config.output_file))
    return result


def generate(request: Request[GenerateConfig], prompt: str, progress: Progress) -> GenerationResult:
    """Continue a prompt."""
    config, backend = request.config, request.backend
    _announce(config, progress)
    model = _existing_model(config, progress, seed=config.seed)
    attention(model.architecture, backend.name)
    tokenizer = load_tokenizer(config)
    check_fits(model.architecture, tokenizer, block_size=1)
    ids = _prompt_ids(tokenizer, prompt)
    _check_room(model.architecture, len(ids), config.max_new_tokens)
    ends = load_ends(config, tokenizer)
    new = _until(
        ends, backend.generate(GenerationJob(model=model, prompt=tuple(ids), eos_token_ids=ends, config=config))
    )
    return GenerationResult(
        backend=backend.name,
        model=str(model.name_or_path),
        prompt=prompt,
        completion=continuation(tokenizer, ids, new),
        tokens=len(new),
    )


def _until(ends: Sequence[int], new: Sequence[int]) -> list[int]:
    """The new tokens up to the first that ends them: a backend may know of one such token alone."""
    last = next((place for place, token in enumerate(new) if token in ends), len(new))
    return list(new[: last + 1])


def _check_output(config: TrainConfig) -> Path | None:
    """Make sure that the run can be written, before anything takes time, and return the checkpoint it goes on from."""
    resume_from = checkpoints.find(Path(config.resume_from_checkpoint)) if config.resume_from_checkpoint else None
    if resume_from and config.overwrite_output_dir:
        raise OptionError("overwrite_output_dir and resume_from_checkpoint were both given: keep one of them")
    if config.report_to != "none" and find_spec(config.report_to) is None:
        raise OptionError(f"report_to {config.report_to}: it is not installed: {install_extra(config.report_to)}")
    if config.prepared:
        _open_whole(prepared_on_hub.fetch(config.prepared))
    if config.output_dir:
        folder = Path(config.output_dir)
        output.check(folder, overwrite=config.overwrite_output_dir, resume_from=resume_from)
        if config.overwrite_output_dir:
            _check_keeps_inputs(config, folder)
    return resume_from


def _check_keeps_inputs(config: TrainConfig, folder: Path) -> None:
    """Make sure that the folder which is overwritten holds nothing that the run is to start from."""
    for name in LOCAL:
        for path in filter(_is_place, _listed(getattr(config, name))):
            place = Path(path).resolve()
            if folder.resolve() in (place, *place.parents):
                raise OutputError(f"output_dir {folder} is to be overwritten, but {name} {path} is in it")


def _announce(config: Any, progress: Progress) -> None:
    """Say what is looked for on the Hub, which may take a while."""
    names = [getattr(config, name, None) for name in ("model_name_or_path", "tokenizer_name", "config_name")]
    wanted = [name for name in names if name and name != SAMPLE and not is_path(name)]
    if wanted or getattr(config, "dataset_name", None):
        wanted += [config.dataset_name] if getattr(config, "dataset_name", None) else []
        progress.say(f"from the Hub: {', '.join(dict.fromkeys(wanted))}")


def _run_file(request: Request[TrainConfig]) -> str:
    """The options of a run, so that it can be repeated, resumed and evaluated from any folder."""
    config = request.config
    local: dict[str, Any] = {
        name: tuple(map(_absolute, value)) if isinstance(value, tuple) else _absolute(value)
        for name in LOCAL
        if (value := getattr(config, name))
    }
    once: dict[str, Any] = {"overwrite_output_dir": False, "overwrite_cache": False, "resume_from_checkpoint": None}
    return options.to_yaml(replace(config, **local, **once), {request.backend.name: request.backend_options})


def _absolute(place: str) -> str:
    """A path that is there, or a glob, as one that holds in every folder; a name on the Hub, or a URL, as it is.

    What a URL lets its user in with is not written down.
    """
    if is_remote(place):
        return without_credentials(place)
    return os.path.abspath(place) if _is_place(place) else place  # noqa: PTH100  (a glob is no path to resolve)


def _is_place(name: str) -> bool:
    """Whether this is a path that is there, or a glob; not a name on the Hub."""
    return Path(name).exists() or any(sign in name for sign in "*?[")


def _listed(value: Any) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _result(
    backend: Backend, prepared: Prepared, config: TrainConfig, recorder: Recorder, folder: Path
) -> TrainingResult:
    return TrainingResult(
        backend=backend.name,
        output_dir=folder,
        steps=recorder.step,
        epochs=recorder.step / recorder.schedule.steps_per_epoch,
        tokens_trained=recorder.tokens_trained,
        seconds=recorder.seconds,
        before=recorder.before,
        after=recorder.after,
        history=tuple(recorder.history),
        ledger=prepared.ledger(config.block_size),
        checkpoint=recorder.checkpoint,
        versions=versions(backend),
    )


def _write_result(result: Result, path: Path) -> None:
    output.write(path, json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n")


def model_to_train(config: TrainConfig, tokenizer: Any, progress: Progress) -> Model:
    """The model that a training starts from, existing or new."""
    if config.model_name_or_path:
        model = _existing_model(config, progress, seed=config.seed)
    else:
        if config.ignore_unused_weights:
            raise OptionError("ignore_unused_weights is of the weights of a model_name_or_path, and none is given")
        architecture = new_architecture(config, tokenizer, progress.say)
        model = Model(name_or_path=None, revision="main", architecture=architecture, seed=config.seed)
    check_fits(model.architecture, tokenizer, config.block_size, new=model.name_or_path is None)
    return model


def _existing_model(config: TrainConfig | EvaluateConfig | GenerateConfig, progress: Progress, *, seed: int) -> Model:
    return Model(
        architecture=load_architecture(config, progress.say),
        name_or_path=config.model_name_or_path,
        revision=config.model_revision,
        seed=seed,
        ignore_unused_weights=config.ignore_unused_weights,
    )


def prepared_for(
    config: TrainConfig | EvaluateConfig, model: Model, tokenizer: Any, progress: Progress, *, need: str
) -> Prepared:
    """Data for a verb, with at least one block in the split that it needs, and in those that it would use."""
    if config.prepared:
        prepared = _open_prepared(prepared_on_hub.fetch(config.prepared), tokenizer)
    else:
        prepared, _ = _prepare(config, tokenizer, progress, None)
    if not prepared.has(need):
        raise DataError(f"there are no documents for {need}: give {WAYS[need]}")
    used = list(prepared.manifest.splits) if need == TRAIN else [need]
    check_blocks(prepared, config.block_size, used)
    _check_ids(prepared, model, used)
    return prepared


def _open_whole(folder: Path) -> Prepared:
    prepared = Prepared.open(folder)
    if prepared.shard:
        raise DataError(f"{folder} is part {prepared.shard} of the data: join all parts with `clm prepare --merge`")
    return prepared


def _open_prepared(folder: Path, tokenizer: Any) -> Prepared:
    prepared = _open_whole(folder)
    prepared.verify()
    if prepared.manifest.tokenizer != digest_tokenizer(tokenizer):
        raise ModelError(f"{folder} was prepared with another tokenizer than the model's: prepare it again")
    return prepared


def _check_ids(prepared: Prepared, model: Model, splits: list[str]) -> None:
    """Make sure that every id in the data has an embedding."""
    rows = count_embeddings(model.architecture)
    largest = max(prepared.manifest.splits[split].largest_id for split in splits)
    if rows is not None and largest >= rows:
        raise ModelError(f"the data hold the token {largest}, the model has embeddings for {rows}")


def _prepare(config: Any, tokenizer: Any, progress: Progress, folder: Path | None) -> tuple[Prepared, bool]:
    with progress.bar("preparing", None, "document") as bar:
        prepared, reused = prepare_data(
            Recipe.make(config, tokenizer),
            folder,
            workers=config.preprocessing_num_workers,
            overwrite=config.overwrite_cache,
            listener=Listener(advance=bar.advance, say=progress.say),
        )
    how = "found prepared, nothing tokenized" if reused else "prepared"
    progress.say(_prepared_line(prepared, config.block_size, how))
    return prepared, reused


def _prepared_line(prepared: Prepared, block_size: int, how: str) -> str:
    ledger = prepared.ledger(block_size)
    documents = ledger["documents"]
    parts = [
        f"{split}: {counts['documents']:,} documents, {counts['tokens'] + counts['eos_added']:,} tokens, "
        f"{counts['blocks']:,} blocks of {block_size}, {counts['tokens_dropped']} tokens dropped"
        for split, counts in ledger["splits"].items()
    ]
    return f"{how}: {documents_read(documents)}; " + "; ".join(parts)


def _recorder(
    config: TrainConfig,
    prepared: Prepared,
    schedule: Schedule,
    folder: Path,
    progress: Progress,
    resume_from: Path | None,
    start: int,
) -> Recorder:
    validated = prepared.has(VALIDATION)
    return Recorder(
        schedule,
        folder,
        progress,
        block_size=config.block_size,
        validation_blocks=prepared.count(VALIDATION, config.block_size).blocks if validated else 0,
        bytes_per_token=prepared.bytes_per_token(VALIDATION) if validated else 1.0,
        curves=CurveWriter(folder / output.LOGS) if config.report_to == "tensorboard" else None,
        resume_from=resume_from,
        start_step=start,
    )


def _prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """The ids of a prompt, open at the end: what the tokenizer's template closes a text with is taken off again."""
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise OptionError("the prompt is not UTF-8") from None
    ids: list[int] = encoder(tokenizer)([prompt]).ids.tolist()
    ids = ids[: len(ids) - len(template_of(tokenizer).after)]
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if not ids and start is None:
        raise OptionError("the prompt is empty, and this tokenizer has no token to begin a text with")
    return ids or [start]


def _check_room(architecture: Any, prompt: int, new: int) -> None:
    positions = count_positions(architecture)
    if positions is None or prompt + new <= positions:
        return
    if prompt >= positions:
        raise OptionError(f"the prompt has {prompt} tokens, the model {positions} positions: use a shorter prompt")
    raise OptionError(
        f"max_new_tokens {new} and the {prompt} tokens of the prompt are above the {positions} positions of the model: "
        f"use --max-new-tokens {positions - prompt}"
    )


def versions(backend: Backend) -> dict[str, str]:
    """Of Python, of clm and of what it runs on."""
    from packaging.requirements import Requirement

    names = ["clm", "transformers", "tokenizers", "numpy", *(Requirement(line).name for line in backend.requires)]
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}
