"""LoRA's adapters: put beside the dense layers of a decoder, filled, and written in peft's layout."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from clm_core.adapters import Adapter, adapter_weights, place, save_adapter
from clm_core.backend import Model
from clm_core.models.series import installed
from clm_tf.keras3 import masters, weights
from clm_tf.keras3.dropout import seed_of
from clm_tf.keras3.projection import adapt

if TYPE_CHECKING:  # It imports this module.
    from clm_tf.keras3.decoder import Decoder

IN_ONE = ("router", "experts.gate", "experts.up", "experts.down")
"""The parts of a mixture that are dense layers in transformers 4.57, but parameters of one module in 5."""


def attach(base: Decoder, model: Model) -> None:
    """Put the layers of the adapter of `model` into a decoder, and let it train nothing else.

    The adapter adds nothing until `fill` has set its variables.

    Raises:
        OptionError: a new adapter names what there is not, or what it cannot be for.
        ModelError: an adapter that was read does so.
    """
    adapter = model.adapter
    assert adapter is not None
    dense = {name: layer for name, part, layer in weights.layers(base) if _can_have_one(layer, part)}
    names = base.layout.names
    placement = place(
        model,
        {name: tuple(layer._kernel.shape) for name, layer in dense.items()},
        weights.shapes(base),
        output=names["head"],
        tied=(names["embeddings"], names["head"]) if base.layout.tied else (),
    )
    for name, (variable, _) in weights.named(base).items():
        variable.trainable = name in placement.shapes
    for name in placement.targets:
        seed = seed_of(base.seed, zlib.crc32(name.encode()))
        adapt(dense[name], adapter.r, scale=adapter.scale, dropout=adapter.dropout, seed=seed)
    base.adapted = model


def of(model: Decoder) -> Model | None:
    """The adapter of a model, with its base, as it was loaded; None if it has none."""
    found: Model | None = model.adapted
    return found


def fields_of(model: Model | None) -> dict[str, Any] | None:
    """The adapter of a model as Keras can write it into a file."""
    return asdict(model.adapter) if model and model.adapter else None


def described_by(base: Decoder, fields: Mapping[str, Any]) -> Model:
    """The model of `fields_of`, whose base a decoder is."""
    given: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in fields.items()}
    adapter = Adapter(**given)
    return Model(
        name_or_path=adapter.base,
        revision=adapter.base_revision,
        architecture=base.configuration,
        seed=base.seed,
        adapter=adapter,
    )


def fill(model: Decoder, source: Model) -> None:
    """Set the variables of an adapter to what its files have, or to first weights.

    Raises:
        ModelError: the files cannot be read, or do not fit.
    """
    variables = weights.trained(model)
    for name, array in adapter_weights(source, weights.shapes_of(variables)).items():
        variable, flipped = variables[name]
        variable.assign(array.T if flipped else array)


def write(model: Decoder, folder: Path) -> None:
    """Write `adapter_model.safetensors`, adapter_config.json and the base's config.json, and check the weights.

    Raises:
        OutputError: what is on disk differs from the adapter.
    """
    described = of(model)
    assert described is not None
    save_adapter(masters.trained(model), described, folder, generation_config=model.generation_config)


def _can_have_one(layer: Any, part: str) -> bool:
    return isinstance(layer, keras.layers.Dense) and not (part in IN_ONE and installed() >= 5)
