"""Tensors of a safetensors checkpoint, checked against the model: each of them is used."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.utils import cached_file

from clm_core.backend import Model
from clm_core.models.quantization import check_types
from clm_core.models.unused_weights import check_tied, check_unused

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
"""A single file, and the list of several."""


def check_all_used(model: Model, loaded: PreTrainedModel, unexpected: Iterable[str]) -> None:
    """Make sure that a loaded model uses everything in its files.

    `unexpected` are the names that transformers could not use, except those that the class itself ignores.

    Raises:
        ModelError: the files have more tensors, or numbers that are not weights, or the model ties tensors that differ.
    """
    files = _Files(model, loaded.base_model_prefix)
    check_types(model, ((name, files.type(name)) for name, _ in loaded.named_parameters() if name in files))
    check_unused(model, unexpected, files.read, lambda: _array(loaded.get_input_embeddings().weight))
    # transformers 4.57 ties them whatever the files say, 5 only if they are equal.
    for first, *others in _tied(loaded, files):
        for name in others:
            check_tied(model, name, files.read(name), first, files.read(first))


def _tied(loaded: PreTrainedModel, files: "_Files") -> Iterable[list[str]]:
    """The names in the files of what is one tensor of the model."""
    names: dict[tuple[int, torch.Size], list[str]] = {}
    for name, tensor in loaded.state_dict().items():
        if name in files:
            names.setdefault((tensor.data_ptr(), tensor.shape), []).append(name)
    return [tied for tied in names.values() if len(tied) > 1]


class _Files:
    """The tensors of a checkpoint, read one at a time."""

    def __init__(self, model: Model, prefix: str) -> None:
        self._where = {name: file for file in _list(model) for name in _names(file)}
        self._prefix = f"{prefix}."

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def type(self, name: str) -> str:
        """What safetensors calls the type of a tensor's numbers."""
        with safe_open(self._where[name], framework="pt") as file:
            return str(file.get_slice(name).get_dtype())

    def read(self, name: str) -> np.ndarray:
        """A tensor, float32; transformers names those of a bare model with or without the prefix of the class."""
        other = name.removeprefix(self._prefix) if name.startswith(self._prefix) else self._prefix + name
        found = name if name in self._where else other
        with safe_open(self._where[found], framework="pt") as file:
            return _array(file.get_tensor(found))


def _list(model: Model) -> list[Path]:
    def cached(file: str) -> Path | None:
        found = cached_file(
            model.name_or_path, file, revision=model.revision, _raise_exceptions_for_missing_entries=False
        )
        return Path(found) if found else None

    single, index = (cached(file) for file in WEIGHTS)
    if single or not index:
        return [single] if single else []
    shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    return [path for shard in shards if (path := cached(shard))]


def _names(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as opened:
        return list(opened.keys())


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()
