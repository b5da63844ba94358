"""The tensors of an adapter: drawn from a seed or read from its file, and written as peft reads them."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clm_core.backend import Model
from clm_core.backend.adapter import CONFIG, LORA_A, LORA_B, WEIGHTS
from clm_core.durable import sync
from clm_core.errors import ModelError
from clm_core.models.adapters.base import write_base
from clm_core.models.adapters.configuration import check_is, write_configuration
from clm_core.models.faults import check_finite
from clm_core.models.first_weights import uniform
from clm_core.models.quantization import check_types
from clm_core.models.weight_files import SHOWN, StoredWeights
from clm_core.weights import save_settings, write_weights

Array = npt.NDArray[np.float32]

PREFIX = "base_model.model."
"""What names in peft's files begin with, before those of the model."""

PICKLED = "adapter_model.bin"


def first_adapter_weight(name: str, shape: tuple[int, ...], *, seed: int) -> Array:
    """The first value of a matrix of an adapter, float32: what the adapter adds is 0 at first.

    `lora_B` is 0, and `lora_A` uniform between plus and minus 1/sqrt(in), as in peft; only the draw is ours.
    """
    if name.endswith(LORA_B):
        return np.zeros(shape, np.float32)
    return uniform(name, shape, 1 / math.sqrt(shape[1]), seed=seed)


def adapter_weights(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """The tensors that a job begins with, float32, by their names, those of a `Placement.shapes`.

    Of a new adapter, these are the two matrices of each layer: what is trained whole begins with the base's weights.

    Raises:
        ModelError: the file cannot be found or read, is pickled, or has not these tensors, in these shapes, and no
            more; or it belongs to an adapter of another rank or scale, or has a number that is not finite.
    """
    adapter = model.adapter
    assert adapter is not None
    if adapter.folder is None:
        drawn = {name: shape for name, shape in shapes.items() if name.endswith((LORA_A, LORA_B))}
        return {name: first_adapter_weight(name, shape, seed=model.seed) for name, shape in drawn.items()}
    folder, stored = Path(adapter.folder), stored_adapter(model)
    check_is(adapter, folder)
    names = {name: PREFIX + name for name in shapes}
    _check_fit(folder / WEIGHTS, {name: stored.shapes.get(found) for name, found in names.items()}, shapes)
    if unused := sorted(set(stored) - set(names.values())):
        more = f" and {len(unused) - SHOWN} more" * (len(unused) > SHOWN)
        raise ModelError(
            f"{folder / WEIGHTS} has tensors that no module named in {CONFIG} has: {', '.join(unused[:SHOWN])}{more}"
        )
    own = replace(model, name_or_path=adapter.folder)
    check_types(own, ((found, stored.types[found]) for found in names.values()))
    read = {name: stored.get_tensor(found).astype(np.float32, copy=False) for name, found in names.items()}
    for name, array in read.items():
        check_finite(own, name, *((array.min(), array.max()) if array.size else ()))
    return read


def stored_adapter(model: Model) -> StoredWeights:
    """The tensors in the file of an adapter, by the names that they have there.

    Raises:
        ModelError: the file cannot be found or read, or is pickled.
    """
    assert model.adapter is not None
    folder = Path(str(model.adapter.folder))
    if not (folder / WEIGHTS).is_file():
        pickled = f" but {PICKLED}, which can run code" if (folder / PICKLED).is_file() else ""
        raise ModelError(f"{folder} has no {WEIGHTS}{pickled}: it is not the folder of a whole adapter")
    return StoredWeights(replace(model, name_or_path=str(folder)), [folder / WEIGHTS])


def save_adapter(weights: Mapping[str, Any], model: Model, folder: Path, *, generation_config: Any = None) -> None:
    """Write an adapter that peft opens: adapter_model.safetensors, adapter_config.json; and config.json of its base.

    `weights` has an array for each tensor, by its name. When this returns, all files are on the disk, and the weights
    have been read back and compared. `generation_config` is as in `clm_core.weights.save`.

    Raises:
        ModelError: transformers has no causal language model of this architecture.
        OutputError: the weights on the disk differ from `weights`.
    """
    adapter = model.adapter
    assert adapter is not None
    folder.mkdir(parents=True, exist_ok=True)
    write_weights({PREFIX + name: array for name, array in weights.items()}, folder / WEIGHTS)
    write_base(adapter, folder)
    write_configuration(adapter, model.architecture, _targets(weights), folder / CONFIG)
    save_settings(model.architecture, folder, generation_config=generation_config)
    sync(folder)


def _targets(weights: Mapping[str, Any]) -> list[str]:
    """The modules that have the two matrices."""
    return [name.removesuffix(LORA_A) for name in weights if name.endswith(LORA_A)]


def _check_fit(file: Path, found: Mapping[str, tuple[int, ...] | None], shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        if found[name] != shape:
            has = "lacks it" if found[name] is None else f"has {found[name]}"
            raise ModelError(f"{file} does not fit its model: {name} has shape {shape} there, and the file {has}")
