"""A GPT-2 and blocks so small that a step takes milliseconds, and its training job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clm_core.adapters import new_adapter
from clm_core.backend import Backend, Blocks, MaskedBlocks, Model, Report, TrainingJob
from clm_core.config import TrainConfig
from clm_core.models.first_weights import first_weight
from clm_core.options import Given, build
from clm_core.schedule import Schedule

VOCABULARY, BLOCK_SIZE, TRAINING_BLOCKS, VALIDATION_BLOCKS = 64, 16, 18, 6

Weights = dict[str, npt.NDArray[np.float32]]

SETTINGS: dict[str, Any] = {
    "max_steps": 4,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "block_size": BLOCK_SIZE,
    "save_strategy": "no",
}
"""Options of every training of the tiny model that does not name others."""


def tiny_gpt2(*, dropout: float = 0.0, **changes: Any) -> Any:
    """The configuration of the tiny GPT-2."""
    from transformers import GPT2Config

    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    sizes = {"vocab_size": VOCABULARY, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
    return GPT2Config(**{**sizes, **rates, "bos_token_id": 0, "eos_token_id": 0, **changes})


def tiny_model(name_or_path: str | None, *, seed: int = 42, dropout: float = 0.1) -> Model:
    """A tiny GPT-2, from scratch or from a folder."""
    return Model(name_or_path=name_or_path, revision="main", architecture=tiny_gpt2(dropout=dropout), seed=seed)


def training_blocks() -> Blocks:
    """Blocks in which a token says much about the next one."""
    return _blocks(TRAINING_BLOCKS, seed=1)


def validation_blocks() -> Blocks:
    """More of the same."""
    return _blocks(VALIDATION_BLOCKS, seed=2)


def training_job(
    backend: Backend,
    folder: Path,
    *,
    model: Model | None = None,
    blocks: tuple[Blocks, Blocks] | None = None,
    report: Report = lambda event: None,
    resume_from: Path | None = None,
    **options: Any,
) -> TrainingJob:
    """The job of training a tiny model in an empty `folder`, with `SETTINGS` and the options named here.

    `blocks` are those to train on and to evaluate on.
    """
    settings = {**SETTINGS, "output_dir": str(folder), **options}
    config = build(TrainConfig, [{name: Given(value, "the contract") for name, value in settings.items()}])
    train, validation = blocks or (training_blocks(), validation_blocks())
    (folder / "model").mkdir(parents=True)
    model = model or tiny_model(None, seed=config.seed)
    return TrainingJob(
        model=model if config.lora_r is None else with_adapter(model, config, folder / "base"),
        train=train,
        validation=validation,
        schedule=Schedule.from_config(config, blocks=len(train)),
        config=config,
        options=backend.options(),
        output_dir=folder,
        model_dir=folder / "model",
        resume_from=resume_from,
        report=report,
        backend=backend.name,
    )


def with_adapter(model: Model, config: TrainConfig, folder: Path) -> Model:
    """A model with the adapter that the options ask for; one from scratch is written to `folder`, to be its base."""
    if model.name_or_path is None:
        weights = first_weights(model.architecture, seed=model.seed)
        model = replace(model, name_or_path=write_model(folder, model.architecture, weights).name_or_path)
    adapter = new_adapter(config, model.name_or_path, model.revision, model.architecture)
    return replace(model, adapter=adapter)


def shapes(architecture: Any) -> dict[str, tuple[int, ...]]:
    """The parameters of a GPT-2, by their names in PyTorch."""
    width, inner = architecture.n_embd, architecture.n_inner or 4 * architecture.n_embd
    matrices = {
        "attn.c_attn": (width, 3 * width),
        "attn.c_proj": (width, width),
        "mlp.c_fc": (width, inner),
        "mlp.c_proj": (inner, width),
    }
    layer: dict[str, tuple[int, ...]] = {f"{name}.weight": size for name, size in matrices.items()}
    layer |= {f"{name}.bias": size[1:] for name, size in matrices.items()}
    layer |= {f"{norm}.{part}": (width,) for norm in ("ln_1", "ln_2") for part in ("weight", "bias")}
    return {
        "transformer.wte.weight": (architecture.vocab_size, width),
        "transformer.wpe.weight": (architecture.n_positions, width),
        **{f"transformer.h.{i}.{name}": size for i in range(architecture.n_layer) for name, size in layer.items()},
        "transformer.ln_f.weight": (width,),
        "transformer.ln_f.bias": (width,),
    }


def first_weights(architecture: Any, *, seed: int) -> Weights:
    """The core's first weights of a GPT-2."""
    drawn = {name: first_weight(name, shape, architecture, seed=seed) for name, shape in shapes(architecture).items()}
    return {name: array for name, array in drawn.items() if array is not None}


def blank_weights(architecture: Any) -> Weights:
    """The weights of a GPT-2 that adds nothing to the residual stream: norms are 1, all else is 0."""
    norms = {name for name in shapes(architecture) if "ln_" in name and name.endswith("weight")}
    return {name: np.full(shape, float(name in norms), np.float32) for name, shape in shapes(architecture).items()}


def write_model(folder: Path, architecture: Any, weights: Mapping[str, Any]) -> Model:
    """Write a model as a backend finds one: weights of PyTorch's layout and config.json."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(weights), folder / "model.safetensors", metadata={"format": "pt"})
    architecture.save_pretrained(folder)
    return Model(name_or_path=str(folder), revision="main", architecture=architecture, seed=42)


def write_in_shards(folder: Path, architecture: Any, weights: Mapping[str, Any]) -> Model:
    """The same with the weights in two files and an index."""
    from safetensors.numpy import save_file

    names = sorted(weights)
    index: dict[str, str] = {}
    model = write_model(folder, architecture, {})
    (folder / "model.safetensors").unlink()
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    written = {"metadata": {"total_size": sum(array.nbytes for array in weights.values())}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(written), encoding="utf-8")
    return model


def read_weights(folder: Path) -> Weights:
    """The tensors of the model that a backend has written."""
    from safetensors.numpy import load_file

    found: Weights = load_file(folder / "model.safetensors")
    return found


def masked(blocks: Blocks) -> MaskedBlocks:
    """The same blocks, of which fewer and fewer tokens count: of the first all but one, of the last one."""
    counted = np.maximum(1, BLOCK_SIZE - 1 - np.arange(len(blocks)))
    return MaskedBlocks(blocks, (np.arange(BLOCK_SIZE) >= BLOCK_SIZE - counted[:, None]).astype(np.uint8))


def _blocks(count: int, *, seed: int) -> Blocks:
    # Raw bits, because NumPy keeps no other stream stable between versions (NEP 19), and numbers are recorded.
    bits = np.random.PCG64(seed).random_raw(count * BLOCK_SIZE).reshape(count, BLOCK_SIZE)
    steps = np.array([1] * 8 + [2, 5])[bits % 10]
    blocks = (np.cumsum(steps, axis=1) % VOCABULARY).astype(np.uint16)
    blocks.flags.writeable = False  # As a memory map is.
    return blocks
