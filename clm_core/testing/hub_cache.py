"""A model in the Hub's cache on disk, so that nothing is downloaded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from clm_core.backend import Model
from clm_core.testing import recorded
from clm_core.testing.tiny import read_weights

SEEDS = {"1" * 40: 1, "2" * 40: 42}
"""Of the weights of each revision; they are commits, for which nobody asks the Hub where they are in the cache."""


def write(cache: Path, patch: pytest.MonkeyPatch) -> Model:
    """Write two revisions into a cache that is now in use; return the one with the weights of `write_checkpoint`."""
    import huggingface_hub.constants
    import transformers.utils.hub
    from transformers import GenerationConfig

    for module, names in (
        (huggingface_hub.constants, {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": True}),
        (transformers.utils.hub, {"TRANSFORMERS_CACHE": str(cache), "_is_offline_mode": True}),  # Of 4.57.
    ):
        for name, value in names.items():
            patch.setattr(module, name, value, raising=False)
    for revision, seed in SEEDS.items():
        folder = cache / "models--clm--tiny" / "snapshots" / revision
        model = recorded.write_checkpoint(folder, seed=seed)
        GenerationConfig.from_model_config(model.architecture).save_pretrained(folder)
        # Backends look for an index before, or after, or not at all.
        index = {"metadata": {}, "weight_map": dict.fromkeys(read_weights(folder), "model.safetensors")}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return replace(model, name_or_path="clm/tiny", revision=revision)
