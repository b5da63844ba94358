"""Weights in PyTorch's layout: each variable of a decoder is one tensor, at most transposed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import numpy.typing as npt

from clm_core.adapters import LORA_A, LORA_B
from clm_core.backend import Model
from clm_core.durable.tensors import OnDemand
from clm_core.errors import ModelError
from clm_core.weights import tensors
from clm_tf.keras3.norm import Norm
from clm_tf.keras3.projection import adapter_of

if TYPE_CHECKING:  # It imports this module.
    from clm_tf.keras3.decoder import Decoder

Array = npt.NDArray[np.float32]
Named = tuple[Any, bool]
"""A variable, and whether PyTorch has it transposed."""


def fill(model: Decoder, source: Model) -> None:
    """Set the variables from the checkpoint in a folder or on the Hub, or to first weights, one after the other.

    Raises:
        ModelError: the weights cannot be read, do not fit, are not all there, or are more than the model has.
    """
    variables = named(model)
    for name, array in read(model, source):
        variable, flipped = variables[name]
        variable.assign(array.T if flipped else array)


def read(model: Decoder, source: Model) -> Iterator[tuple[str, Array]]:
    """The weights that `fill` sets, one after the other: float32, by PyTorch's names and in its shapes.

    Raises:
        ModelError: as of `fill`.
    """
    embeddings = f"{model.layout.names['embeddings']}.weight"
    yield from tensors(source, shapes(model), input_embeddings=embeddings, prefix=model.layout.prefix)


def exported(model: Decoder) -> OnDemand:
    """The weights as PyTorch has them: by their names and in their shapes there, what LoRA adds included.

    They are of the type of the variables.

    Raises:
        ModelError: the model was quantized, and so its variables are not these weights any more.
    """
    for layer in model._flatten_layers():
        if mode := getattr(layer, "quantization_mode", None):
            raise ModelError(f"layer {layer.path} was quantized to {mode}, which PyTorch's layout has no place for")
    return OnDemand({name: partial(array_of, *pair) for name, pair in named(model, summed=True).items()})


def shapes(model: Decoder) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights in PyTorch, by their names there."""
    return shapes_of(named(model))


def shapes_of(variables: Mapping[str, Named]) -> dict[str, tuple[int, ...]]:
    """The shapes in PyTorch of these variables."""
    return {
        name: tuple(variable.shape[::-1] if flipped else variable.shape)
        for name, (variable, flipped) in variables.items()
    }


def trained(model: Decoder) -> dict[str, Named]:
    """By PyTorch's names: the variables that a training changes, those of an adapter included."""
    found = named(model)
    for name, _, layer in layers(model):
        if isinstance(layer, keras.layers.Dense) and (adapter := adapter_of(layer)):
            found |= {f"{name}{LORA_A}": (adapter.a, True), f"{name}{LORA_B}": (adapter.b, True)}
    return {name: pair for name, pair in found.items() if pair[0].trainable}


def named(model: Decoder, *, summed: bool = False) -> dict[str, Named]:
    """By PyTorch's names: the variables, and whether PyTorch has them transposed. A tied head has no matrix.

    Where a layer has Keras' LoRA, its variable is the matrix without it; `summed`, a tensor with what LoRA adds. What
    an adapter has is not among them; `trained` has it.
    """
    layout = model.layout
    found: dict[str, Named] = {}
    for name, part, layer in layers(model):
        found |= _variables_of(layer, name, layout.transposed or part == "head", summed)
    if layout.tied and layout.head_bias:
        found[f"{layout.names['head']}.bias"] = (model.head_bias, False)
    return found


def layers(model: Decoder) -> Iterator[tuple[str, str, Any]]:
    """The layers with weights: what PyTorch calls each, the part of `Layout.names` that it is, and itself."""
    for part, name in model.layout.names.items():
        owners = [model] if "{}" not in name else model.blocks
        for index, owner in enumerate(owners):
            for number, layer in enumerate(_parts(owner, part)):
                yield name.format(index, number), part, layer


def array_of(variable: Any, flipped: bool) -> Array:
    """The value of a variable as PyTorch has it."""
    array = variable.numpy()
    return np.ascontiguousarray(array.T if flipped else array)


def _parts(owner: Any, part: str) -> list[Any]:
    """The layers of this name in the decoder, or in a block or its branches: one, none for a tied head, or experts."""
    attention, feedforward = (vars(owner).get(branch) for branch in ("attention", "feedforward"))
    group, _, name = part.rpartition(".")
    homes = [owner, attention, feedforward]
    if group:
        found = vars(feedforward).get(group, ()) if feedforward else ()
        homes = list(found) if group == "experts" else [found]
    name = "output_projection" if name == "output" else name
    return [vars(home)[name] for home in homes if name in getattr(home, "__dict__", ())]


def _variables_of(layer: Any, name: str, transposed: bool, summed: bool) -> dict[str, Named]:
    if isinstance(layer, Norm):
        weight, bias, transposed = layer.weight, layer.bias, False
    elif isinstance(layer, keras.layers.Embedding):
        weight, bias, transposed = layer.embeddings if summed else layer._embeddings, None, False
    else:
        weight, bias = layer.kernel if summed else layer._kernel, layer.bias
    found = {f"{name}.weight": (weight, transposed), f"{name}.bias": (bias, False)}
    return {key: pair for key, pair in found.items() if pair[0] is not None}
