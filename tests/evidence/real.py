"""Compares clm with plain transformers on models that people have, and writes a table: needs the network.

    python tests/evidence/real.py docs/real-5.json                all of MODELS
    python tests/evidence/real.py docs/real-5.json gpt2 ./folder  these, into what the file has already

For each model: the tokens of documents, the loss on blocks of them, greedy text, the losses of five steps, and what
was written, read back by clm and by plain transformers. Plain transformers answers in a process of its own, with eager
attention and float64 softmax. Dropout is taken out of both, since it is drawn differently.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from processes import ask

import clm_core as clm
from clm_core import sample
from clm_core.comparison.compare import without_dropout
from clm_core.errors import ClmError
from clm_core.models.configurations import load_config
from clm_core.schedule import Schedule

MODELS = (
    *("distilbert/distilgpt2", "openai-community/gpt2", "facebook/opt-125m", "EleutherAI/pythia-70m"),
    *("HuggingFaceTB/SmolLM2-135M", "Qwen/Qwen2.5-0.5B", "Qwen/Qwen3-0.6B", "meta-llama/Llama-3.2-1B"),
    *("google/gemma-3-270m", "microsoft/phi-1_5", "bigscience/bloom-560m", "TinyLlama/TinyLlama-1.1B-Chat-v1.0"),
)
FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]

BLOCK, BATCH, STEPS, NEW_TOKENS = 128, 4, 5, 20
DOCUMENTS = 150
"""Of the built-in sample: a fifth of them are scored, some 20 blocks with the largest vocabularies."""
PROMPT = "Once upon a time there was a"
LEARNING_RATE = 1e-5

LIMITS = {"loss": 1e-6, "steps": 1e-4, "read back": 1e-6, "elsewhere": 1e-6}
"""The relative differences that count as agreement."""


def main(argv: list[str] | None = None) -> int:
    """Compare, and write the file and the page after each model; return 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("models", nargs="*")
    given = parser.parse_args(argv)
    kept = json.loads(given.file.read_text(encoding="utf-8")) if given.models and given.file.exists() else {}
    for name in given.models or MODELS:
        with tempfile.TemporaryDirectory(prefix="clm-real-") as folder:
            kept[name] = examine(name, Path(folder))
        given.file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        print(*lines(name, kept[name]), sep="\n", flush=True)
    given.file.with_suffix(".md").write_text(page(kept), encoding="utf-8")
    return 0 if all(row.get("agrees", True) for found in kept.values() for row in found.values()) else 1


def examine(name: str, folder: Path) -> dict[str, dict[str, Any]]:
    """What came of a model, by backend: `agrees` with the figures, or why there are none."""
    try:
        model = fetch(name, folder / "model")
        data = clm.prepare(
            model_name_or_path=model, output_dir=folder / "data", train_file=documents(folder), block_size=BLOCK
        )
    except (ClmError, OSError) as error:
        return {backend: {"none": " ".join(str(error).split())[:300]} for backend in backends()}
    prepared = clm.Prepared.open(data.folder)
    plain = _plain(model, prepared, folder)
    return {backend: _compared(backend, model, prepared, plain) for backend in backends()}


def backends() -> list[str]:
    """Those of clm whose framework is here."""
    return [name for name, module in (("pt", "torch"), ("tf", "tensorflow")) if find_spec(module)]


def fetch(name: str, folder: Path) -> Path:
    """The files of a model, in a folder of their own, with a configuration that has no dropout."""
    from huggingface_hub import snapshot_download

    if Path(name).is_dir():
        folder.mkdir()
        for path in Path(name).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
    else:
        snapshot_download(name, local_dir=folder, allow_patterns=FILES)
    dropped = without_dropout(load_config("model", str(folder), "main"))
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**config, **dict.fromkeys(dropped, 0.0)}, indent=2), encoding="utf-8")
    return folder


def documents(folder: Path) -> Path:
    """Documents of the built-in sample, in a file."""
    texts = [text for row in sample.rows() for text in row["answers"]["text"] if text.strip()]
    file = folder / "documents.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[:DOCUMENTS]), encoding="utf-8")
    return file


def _plain(model: Path, prepared: clm.Prepared, folder: Path) -> dict[str, Any]:
    """The answers of plain transformers; `documents` are those of the split that is scored, in their order."""
    train, validation = (prepared.blocks(split, BLOCK) for split in ("train", "validation"))
    config = clm.TrainConfig(**_training(model, prepared.folder))
    order = Schedule.from_config(config, blocks=len(train)).batches(0)
    texts = [json.loads(line)["text"] for line in (folder / "documents.jsonl").read_text(encoding="utf-8").splitlines()]
    return ask(
        "plain",
        {
            "model": str(model),
            "documents": texts,
            "blocks": validation.astype(int).tolist(),
            "prompt": PROMPT,
            "new_tokens": NEW_TOKENS,
            "steps": [train[rows].astype(int).tolist() for _, rows in zip(range(STEPS), order, strict=False)],
            "learning_rate": LEARNING_RATE,
        },
    )


def _training(model: Path, prepared: Path) -> dict[str, Any]:
    return {
        "model_name_or_path": str(model),
        "prepared": str(prepared),
        "block_size": BLOCK,
        "per_device_train_batch_size": BATCH,
        "per_device_eval_batch_size": BATCH,
        "max_steps": STEPS,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
    }


def _compared(backend: str, model: Path, prepared: clm.Prepared, plain: dict[str, Any]) -> dict[str, Any]:
    output = prepared.folder.with_name(f"run-{backend}")
    training = {**_training(model, prepared.folder), "output_dir": str(output)}
    try:
        found = ask(
            "through_clm", {"backend": backend, "training": training, "prompt": PROMPT, "new_tokens": NEW_TOKENS}
        )
    except RuntimeError as error:
        return {"agrees": False, "none": str(error)}
    if "refused" in found:
        return {"none": found["refused"]}
    blocks = prepared.blocks("validation", BLOCK)
    elsewhere = ask("plain", {"model": found["run"], "blocks": blocks.astype(int).tolist()})
    apart = {
        "loss": _apart(found["before"], plain["loss"]),
        "steps": max(_apart(*pair) for pair in zip(found["losses"], plain["losses"], strict=True)),
        "read back": _apart(found["again"], found["after"]),
        "elsewhere": _apart(elsewhere["loss"], found["after"]),
    }
    same_tokens = _tokens(prepared) == _counted(plain["tokens"])
    same_text = found["text"] == plain["text"]
    agrees = same_tokens and same_text and all(apart[name] <= limit for name, limit in LIMITS.items())
    figures = {"loss": found["before"], "blocks": len(blocks), "versions": found["versions"]}
    return {"agrees": agrees, "tokens": same_tokens, "text": same_text, "apart": apart, **figures}


def _tokens(prepared: clm.Prepared) -> dict[int, int]:
    """How often each token was made; documents are split between files, so that their order says nothing."""
    splits = [np.asarray(prepared.tokens(split)) for split in prepared.manifest.splits]
    return _counted(np.concatenate(splits).tolist())


def _counted(tokens: list[int]) -> dict[int, int]:
    return dict(zip(*(part.tolist() for part in np.unique(tokens, return_counts=True)), strict=True))


def _apart(one: float, other: float) -> float:
    return abs(one - other) / abs(other)


def lines(name: str, found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The rows of a model in the table."""
    for backend, row in found.items():
        if "apart" not in row:
            yield f"| {name} | `{backend}` | {row['none'].replace('|', ' ')} | | | | | |"
            continue
        apart = " | ".join(f"{row['apart'][what]:.1e}" for what in LIMITS)
        same = " | ".join("the same" if row[what] else "**differ**" for what in ("tokens", "text"))
        yield f"| {name} | `{backend}` | {same} | {row['loss']:.4f} | {apart} |"


def page(found: dict[str, dict[str, Any]]) -> str:
    """All of them, as Markdown."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("transformers", "clm"))
    head = [
        "# Models from the Hub\n",
        f"Made by `nox -s real` with {versions}: clm against plain transformers with eager attention, both in float32 "
        f"without dropout. Relative differences of the loss before training, the losses of {STEPS} steps, the loss of "
        "the written model read back by clm, and by plain transformers.\n",
        "| model | backend | tokens | greedy text | loss | loss apart | steps | read back | in transformers |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *(line for name, rows in found.items() for line in lines(name, rows))]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
