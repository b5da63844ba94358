"""A model of the Hub as its cache on disk has it, so that nothing is fetched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clm_core.backend import Model
from clm_core.testing.tiny import first_weights, tiny_gpt2, write_model

REVISIONS = ("1" * 40, "2" * 40)
"""Commits, for which nobody asks the Hub where they are in the cache."""


def write(cache: Path, patch: pytest.MonkeyPatch) -> list[tuple[Model, Path]]:
    """Write two revisions with other weights into a cache that is now in use; return each with its folder."""
    import huggingface_hub.constants
    import transformers.utils.hub

    for module, names in (
        (huggingface_hub.constants, {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": True}),
        (transformers.utils.hub, {"TRANSFORMERS_CACHE": str(cache), "_is_offline_mode": True}),  # Of 4.57.
    ):
        for name, value in names.items():
            patch.setattr(module, name, value, raising=False)
    return [_write_revision(cache, revision, seed) for seed, revision in enumerate(REVISIONS)]


def _write_revision(cache: Path, revision: str, seed: int) -> tuple[Model, Path]:
    from transformers import GenerationConfig

    folder, architecture = cache / "models--clm--tiny" / "snapshots" / revision, tiny_gpt2(initializer_range=0.2)
    weights = first_weights(architecture, seed=seed)
    write_model(folder, architecture, weights)
    GenerationConfig.from_model_config(architecture).save_pretrained(folder)
    # Backends look for an index before, or after, or not at all.
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "model.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return Model(name_or_path="clm/tiny", revision=revision, architecture=architecture, seed=42), folder
