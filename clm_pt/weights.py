"""Weights in PyTorch's layout: every tensor of a file is checked against the model that was loaded from it."""

from collections.abc import Iterable

import numpy as np
from transformers import PreTrainedModel

from clm_core.backend import Model
from clm_core.models.faults import check_finite
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
        return stored.get_tensor(stored.find(name, f"{loaded.base_model_prefix}."))

    def input_embeddings() -> np.ndarray:
        return loaded.get_input_embeddings().weight.detach().float().cpu().numpy()

    check_types(model, ((name, stored.types[name]) for name, _ in loaded.named_parameters() if name in stored))
    check_unused(model, unexpected, read, input_embeddings)
    # transformers 4.57 ties them whatever the files say, 5 only if they are equal.
    for first, *others in _tied(loaded, stored):
        for name in others:
            check_tied(model, name, stored.get_tensor(name), first, stored.get_tensor(first))


def check_all_finite(model: Model, loaded: PreTrainedModel) -> None:
    """Make sure that the parameters of a loaded model are finite numbers.

    Raises:
        ModelError: one has a number that is not.
    """
    for name, parameter in loaded.named_parameters():
        if parameter.is_floating_point() and parameter.numel():
            check_finite(model, name, *map(float, parameter.detach().aminmax()))


def _tied(loaded: PreTrainedModel, stored: StoredWeights) -> Iterable[list[str]]:
    """The names in the files of what is one tensor of the model."""
    names: dict[tuple[int, tuple[int, ...]], list[str]] = {}
    for name, tensor in loaded.state_dict().items():
        if name in stored:
            names.setdefault((tensor.data_ptr(), tuple(tensor.shape)), []).append(name)
    return [tied for tied in names.values() if len(tied) > 1]
