"""Weights in PyTorch's layout: every tensor of a file is checked against the model that was loaded from it."""

from collections.abc import Iterable

import numpy as np
import torch
from transformers import PreTrainedModel

from clm_core.backend import Model
from clm_core.models.faults import check_finite
from clm_core.models.file_names import shapes_in_files
from clm_core.models.quantization import check_types
from clm_core.models.unused_weights import check_tied, check_unused
from clm_core.models.weight_files import StoredWeights


def check_all_used(model: Model, stored: StoredWeights, loaded: PreTrainedModel, unexpected: Iterable[str]) -> None:
    """Make sure that a loaded model uses everything in its files.

    `unexpected` are the names that transformers could not use, except those that the class itself ignores.

    Raises:
        ModelError: the files have more tensors, or numbers that are not weights, or the model ties tensors that differ.
    """

    def read(name: str) -> np.ndarray:
        found = stored.get_tensor(stored.find(name, f"{loaded.base_model_prefix}."))
        return found if loaded.dtype == torch.float32 else _rounded(found, loaded.dtype)

    def input_embeddings() -> np.ndarray:
        return loaded.get_input_embeddings().weight[: stored.rows].detach().float().cpu().numpy()

    check_types(model, ((name, stored.types[name]) for name, _ in loaded.named_parameters() if name in stored))
    check_unused(model, unexpected, read, input_embeddings)
    # transformers 4.57 ties them whatever the files say, 5 only if they are equal.
    for first, *others in _tied(loaded, stored):
        for name in others:
            check_tied(model, name, stored.as_written(name), first, stored.as_written(first))


@torch.no_grad()
def grow(model: Model, stored: StoredWeights, loaded: PreTrainedModel) -> set[str]:
    """Fill what a loaded model has more of than its files, because it is to have more token embeddings.

    Returns the names of such parameters, each of those of a tied one.
    """
    if model.vocabulary is None:
        return set()
    prefix, kind = f"{loaded.base_model_prefix}.", loaded.config.model_type
    in_files = {next(iter(shapes_in_files(name, tuple(it.shape), kind))): it for name, it in loaded.named_parameters()}
    names = stored.grow({name: tuple(it.shape) for name, it in in_files.items()}, prefix)
    for name in names:
        in_files[name].copy_(torch.from_numpy(stored.get_tensor(stored.find(name, prefix))))
    filled = {id(in_files[name]) for name in names}
    return {name for name, it in loaded.named_parameters(remove_duplicate=False) if id(it) in filled}


def check_all_finite(model: Model, loaded: PreTrainedModel) -> None:
    """Make sure that the parameters of a loaded model are finite numbers.

    Raises:
        ModelError: one has a number that is not.
    """
    for name, parameter in loaded.named_parameters():
        if parameter.is_floating_point() and parameter.numel():
            check_finite(model, name, *map(float, parameter.detach().aminmax()))


def _rounded(array: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """What is left of numbers in a model of another type, as what they are compared with."""
    return torch.tensor(array).to(dtype).float().numpy() if np.issubdtype(array.dtype, np.floating) else array


def _tied(loaded: PreTrainedModel, stored: StoredWeights) -> Iterable[list[str]]:
    """The names in the files of what is one tensor of the model."""
    names: dict[tuple[int, tuple[int, ...]], list[str]] = {}
    for name, tensor in loaded.state_dict().items():
        if name in stored:
            names.setdefault((tensor.data_ptr(), tuple(tensor.shape)), []).append(name)
    return [tied for tied in names.values() if len(tied) > 1]
