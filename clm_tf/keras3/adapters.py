"""LoRA's adapters: put beside the dense layers of a decoder, filled, and written in peft's layout."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from clm_core.adapters import Adapter, adapter_weights, place, save_adapter
from clm_core.backend import Model
from clm_core.models.series import installed
from clm_tf.keras3 import weights
from clm_tf.keras3.dropout import seed_of
from clm_tf.keras3.projection import adapt

if TYPE_CHECKING:  # It imports this module.
    from clm_tf.keras3.decoder import Decoder

IN_ONE = ("router", "experts.gate", "experts.up", "experts.down")
"""The parts of a mixture that are dense layers in transformers 4.57, but parameters of one module in 5."""


def attach(decoder: Decoder, fields: Mapping[str, Any]) -> Adapter:
    """Put the layers of an adapter, of these fields, into a new decoder, and let it train nothing else.

    The adapter adds nothing until `fill` has set its variables.

    Raises:
        OptionError: a new adapter names what there is not, or what it cannot be for.
        ModelError: an adapter that was read does so.
    """
    adapter = Adapter(**{name: tuple(each) if isinstance(each, list) else each for name, each in fields.items()})
    dense = {name: layer for name, part, layer in weights.layers(decoder) if _can_have_one(layer, part)}
    names = decoder.layout.names
    placement = place(
        _model_of(decoder, adapter),
        {name: tuple(layer._kernel.shape) for name, layer in dense.items()},
        weights.shapes(decoder),
        output=names["head"],
        tied=(names["embeddings"], names["head"]) if decoder.layout.tied else (),
    )
    for name, (variable, _) in weights.named(decoder).items():
        variable.trainable = name in placement.shapes
    for name in placement.targets:
        seed = seed_of(decoder.seed, zlib.crc32(name.encode()))
        adapt(dense[name], adapter.r, scale=adapter.scale, dropout=adapter.dropout, seed=seed)
    return adapter


def fields_of(adapter: Adapter | None) -> dict[str, Any] | None:
    """What `attach` takes, which Keras can write into a file."""
    return None if adapter is None else asdict(adapter)


def fill(decoder: Decoder, source: Model) -> None:
    """Set the variables of an adapter to what its files have, or to first weights.

    Raises:
        ModelError: the files cannot be read, or do not fit.
    """
    variables = weights.trained(decoder)
    for name, array in adapter_weights(source, weights.shapes_of(variables)).items():
        variable, flipped = variables[name]
        variable.assign(array.T if flipped else array)


def save(decoder: Decoder, folder: str | os.PathLike[str]) -> None:
    """Write `adapter_model.safetensors`, adapter_config.json and the base's config.json, and check the weights.

    Raises:
        OutputError: what is on disk differs from the adapter.
    """
    arrays = {name: weights.array_of(*pair) for name, pair in weights.trained(decoder).items()}
    source = _model_of(decoder, decoder.adapter)
    save_adapter(arrays, source, Path(folder), generation_config=decoder.generation_config)


def _can_have_one(layer: Any, part: str) -> bool:
    return isinstance(layer, keras.layers.Dense) and not (part in IN_ONE and installed() >= 5)


def _model_of(decoder: Decoder, adapter: Adapter) -> Model:
    return Model(
        name_or_path=adapter.base,
        revision=adapter.base_revision,
        architecture=decoder.configuration,
        seed=decoder.seed,
        adapter=adapter,
    )
