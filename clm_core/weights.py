"""Loads and saves a model's weights as NumPy arrays, in PyTorch's layout.

The layout is `model.safetensors`, or several such files and an index, under the names and in the shapes that the
parameters have in transformers' PyTorch classes: all frameworks, and all versions of transformers, read it.
"""

import copy
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from clm_core.backend import Model
from clm_core.durable import sync
from clm_core.durable.tensors import OnDemand, bytes_of, write_tensors
from clm_core.errors import ModelError, OutputError
from clm_core.models.faults import check_finite
from clm_core.models.first_weights import first_weight
from clm_core.models.quantization import check_quantization, check_types
from clm_core.models.unused_weights import check_unused
from clm_core.models.weight_files import WEIGHTS, Entry, StoredWeights, check_whole, entries
from clm_core.paths import GENERATION_CONFIG

Array = npt.NDArray[np.float32]

PART = 1 << 22
"""Bytes that are read back at a time."""


def load(
    model: Model, shapes: Mapping[str, tuple[int, ...]], *, input_embeddings: str, prefix: str = ""
) -> dict[str, Array]:
    """The weights that a job begins with, all at once; `tensors` has the arguments and the errors."""
    return dict(tensors(model, shapes, input_embeddings=input_embeddings, prefix=prefix))


def tensors(
    model: Model, shapes: Mapping[str, tuple[int, ...]], *, input_embeddings: str, prefix: str = ""
) -> Iterator[tuple[str, Array]]:
    """The weights that a job begins with, float32: those at `model.name_or_path`, or new ones drawn with `model.seed`.

    Where `model.vocabulary` asks for more token embeddings than the files have, what is added is the mean of them.

    They come one by one, so that no more than one of them need be in memory beside the model's own.

    `shapes` has the parameters of the model by their names in PyTorch, with their shapes there. `input_embeddings` is
    one of them. A tied output layer is not: it has no separate tensor. `prefix` is what the class puts before the
    names of the bare model, such as "transformer."; files may have it or not. Half-precision files are read too.

    Raises:
        ModelError: the weights cannot be found or read, are pickled, quantized, incomplete, of other shapes, or more
            than the model has, or not finite; or they are to be drawn, and the core has no rules for this architecture.
    """
    if model.name_or_path is None:
        yield from ((name, _drawn(model, name, shape)) for name, shape in shapes.items())
        return
    check_quantization(model.architecture)
    stored = StoredWeights.of(model)
    names = {name: stored.find(name, prefix) for name in shapes}
    stored.grow(shapes, prefix)
    check_whole(model, [name for name, found in names.items() if stored.shapes.get(found) != shapes[name]])
    check_types(model, ((found, stored.types[found]) for found in names.values()))
    check_unused(
        model,
        set(stored) - set(names.values()),
        stored.get_tensor,
        lambda: stored.as_written(names[input_embeddings]),
    )
    for name, found in names.items():
        array = stored.get_tensor(found).astype(np.float32, copy=False)
        check_finite(model, name, *((array.min(), array.max()) if array.size else ()))
        yield name, array


def save(weights: Mapping[str, Any], architecture: Any, folder: Path, *, generation_config: Any = None) -> None:
    """Write a model that PyTorch opens: model.safetensors, config.json and generation_config.json.

    `weights` has an array for each parameter, by its name and in its shape in PyTorch; anything that NumPy converts to
    an array works, and is written as float32. A mapping may make each when it is asked for, so that not all need be in
    memory. config.json is `architecture` as transformers' causal language model would write it. `generation_config` is
    derived from it if none is given. When this returns, all files are on the disk, and the weights have been read back
    and compared.

    Raises:
        ModelError: transformers has no causal language model of this architecture.
        OutputError: the weights on the disk differ from `weights`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_settings(architecture, folder, generation_config=generation_config)
    write_weights(weights, folder / WEIGHTS)
    sync(folder)


def save_settings(architecture: Any, folder: Path, *, generation_config: Any = None) -> None:
    """Write config.json and generation_config.json as `save` does.

    Raises:
        ModelError: transformers has no causal language model of this architecture.
    """
    from transformers import GenerationConfig

    config = _of_causal_model(architecture)
    config.save_pretrained(folder)
    # `save_pretrained` of transformers 4 refuses settings that contradict each other, and the model may have such.
    (generation_config or GenerationConfig.from_model_config(config)).to_json_file(folder / GENERATION_CONFIG)


def write_weights(weights: Mapping[str, Any], file: Path) -> None:
    """Write arrays as float32 into a safetensors file of PyTorch's layout, and compare what is there with them.

    Raises:
        OutputError: they differ.
    """
    arrays = OnDemand({name: partial(_float32, weights, name) for name in weights})
    write_tensors(file, arrays, {"format": "pt"})
    _check_written(arrays, file)


def not_written(path: Path, name: str) -> OutputError:
    """What is raised where the weights read back are not those that were written; `name` is the first that differs."""
    return OutputError(
        f"the weights in {path} were not written correctly (first in {name}): is the disk full or failing?"
    )


def _drawn(model: Model, name: str, shape: tuple[int, ...]) -> Array:
    drawn = first_weight(name, shape, model.architecture, seed=model.seed)
    if drawn is None:
        raise ModelError(
            f"model type {model.architecture.model_type}: the first value of {name} is not known without the framework "
            "that the model was written in: start from a checkpoint"
        )
    return drawn


def _of_causal_model(architecture: Any) -> Any:
    """A configuration as transformers' causal language model would write it, with float32 weights."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = architecture.model_type
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(f"model type {kind}: transformers has no causal language model of it that could be written")
    config = copy.deepcopy(architecture)
    config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]]
    # A checkpoint that was float16 is not any more, and transformers 5 opens a model in the type its config names.
    config.dtype = "float32"
    return config


def _float32(weights: Mapping[str, Any], name: str) -> Array:
    return np.asarray(weights[name], np.float32)


def _check_written(weights: Mapping[str, Array], file: Path) -> None:
    written = entries(file)
    with file.open("rb") as content:
        for name in weights:
            if not _is_at(content, written.get(name), weights[name]):
                raise not_written(file, name)


def _is_at(content: BinaryIO, entry: Entry | None, array: Array) -> bool:
    """Whether a file has this array, bit for bit; it is not mapped, so that no more than a part of it is in memory."""
    if entry is None or (entry.kind, entry.shape) != ("F32", array.shape):
        return False
    content.seek(entry.start)
    whole = bytes_of(array)
    parts = (whole[start : start + PART] for start in range(0, len(whole), PART))
    return all(content.read(len(part)) == part for part in parts)
