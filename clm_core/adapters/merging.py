"""A whole model from an adapter and its base: what the adapter adds is added to the weights, without a framework."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clm_core.adapters.weights import PREFIX, adapter_weights, stored_adapter
from clm_core.backend import Model
from clm_core.backend.adapter import LORA_A, LORA_B, WEIGHTS, Adapter
from clm_core.errors import ModelError
from clm_core.models.adapters.conv1d import is_conv1d
from clm_core.models.file_names import shapes_in_files
from clm_core.models.quantization import check_quantization, check_types
from clm_core.models.unused_weights import COMPUTED, MASK, is_mask
from clm_core.models.weight_files import StoredWeights

Array = npt.NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]

EXPERTS = ".experts."
"""In the names of layers that transformers 5 has in one tensor, beside which it has no adapter."""


def merged(model: Model) -> dict[str, Array]:
    """The weights of a model with its adapter in them, float32, by the names that the base's files have.

    Raises:
        ModelError: the base or the adapter cannot be read, or they do not belong together.
    """
    kind = model.architecture.model_type
    check_quantization(model.architecture)
    base = StoredWeights.of(model)
    kept = [name for name in base if not _is_computed(name, base)]
    check_types(model, ((name, base.types[name]) for name in kept))
    own = {name.removeprefix(PREFIX): shape for name, shape in stored_adapter(model).shapes.items()}
    weights = adapter_weights(model, own)
    layers = {_in_base(model, base, f"{layer}.weight"): layer for layer in _layers(own)}
    whole = {
        _in_base(model, base, name): part
        for each in own
        if not each.endswith((LORA_A, LORA_B))
        for name, part in _in_files(each, weights[each], kind).items()
    }
    _check_whole(model, base, whole)
    _check_none_is_left(model, base, {*layers, *whole}, layers)
    found = {}
    for name in kept:
        weight = whole.get(name, base.get_tensor(name).astype(np.float32))
        found[name] = weight + _added(model, layers[name], weights, weight.shape) if name in layers else weight
    return found


def _in_files(name: str, array: Array, kind: str) -> dict[str, Array]:
    """A parameter as the tensors that it is in files: itself, for nearly all."""
    shapes = shapes_in_files(name, array.shape, kind)
    parts = np.split(array.ravel(), len(shapes))
    return {each: part.reshape(shape) for (each, shape), part in zip(shapes.items(), parts, strict=True)}


def _adapter(model: Model) -> Adapter:
    assert model.adapter is not None
    assert model.adapter.folder is not None
    return model.adapter


def _layers(own: Shapes) -> Iterator[str]:
    """The layers that have one of the two matrices."""
    return iter(dict.fromkeys(n.removesuffix(LORA_A).removesuffix(LORA_B) for n in own if n.endswith((LORA_A, LORA_B))))


def _added(model: Model, layer: str, weights: Mapping[str, Array], shape: tuple[int, ...]) -> Array:
    """What an adapter adds to the weight of a layer."""
    first, second = (weights.get(f"{layer}{matrix}", np.zeros((0, 0), np.float32)) for matrix in (LORA_A, LORA_B))
    turned = is_conv1d(layer, model.architecture)
    wanted = shape[::-1] if turned else shape
    if first.shape[::-1] != (wanted[-1], _adapter(model).r) or second.shape != (wanted[0], _adapter(model).r):
        raise _unfit(model, f"{layer} is of {shape}, and the adapter has {first.shape} and {second.shape} for it")
    product = second @ first
    added: Array = np.float32(_adapter(model).scale) * (product.T if turned else product)
    return added


def _in_base(model: Model, base: StoredWeights, name: str) -> str:
    """What a tensor is called in the base's files, which may have the names of the bare model."""
    for each in (name, name.partition(".")[2]):
        if each in base:
            return each
    raise _unfit(model, f"there is no {name} in it")


def _check_whole(model: Model, base: StoredWeights, whole: Mapping[str, Array]) -> None:
    """Make sure that what is saved whole is a weight of the base, and not another's, too."""
    text = model.architecture.get_text_config()
    for name, array in whole.items():
        if base.shapes[name] != array.shape:
            raise _unfit(model, f"{name} is of {base.shapes[name]}, and the adapter has {array.shape} for it")
        if text.tie_word_embeddings and array.shape[0] == text.vocab_size:
            raise ModelError(
                f"{_adapter(model).folder}: {name} cannot be merged, for it is the weight of the embeddings and of the "
                "output layer, and the adapter has another one for one of them"
            )


def _check_none_is_left(model: Model, base: StoredWeights, used: set[str], layers: Mapping[str, str]) -> None:
    """Make sure that each layer that the adapter's configuration names has its matrices."""
    adapter, with_experts = _adapter(model), any(EXPERTS in name for name in layers)
    for name in base:
        is_layer = name.endswith(".weight") and len(base.shapes[name]) == 2 and (with_experts or EXPERTS not in name)
        if is_layer and name not in used and adapter.is_target(name.removesuffix(".weight")):
            raise _unfit(model, f"there is nothing in the adapter for {name}, which its configuration names")


def _unfit(model: Model, why: str) -> ModelError:
    file = Path(str(_adapter(model).folder)) / WEIGHTS
    return ModelError(f"{file} is no adapter of {model.name_or_path}: {why}")


def _is_computed(name: str, base: StoredWeights) -> bool:
    """Whether it is no weight, but what a class computes today, and older versions saved."""
    if COMPUTED.search(name):
        return True
    return bool(MASK.search(name)) and len(base.shapes[name]) == 4 and is_mask(base.get_tensor(name))
