"""Weights in PyTorch's layout: read into a TensorFlow model, and written from one.

The layout on disk is PyTorch's because it is the one that both frameworks, and every version of
transformers, read. transformers' own TensorFlow classes neither read nor write it without torch.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from transformers import TFPreTrainedModel
from transformers.modeling_tf_pytorch_utils import (
    TransposeType,
    apply_transpose,
    convert_tf_weight_name_to_pt_weight_name,
    load_pytorch_state_dict_in_tf2_model,
)
from transformers.utils import cached_file, has_file

from clm_core.backend import Model
from clm_core.errors import ModelError, OutputError
from clm_core.models.first_weights import first_weight
from clm_core.models.quantization import check_types
from clm_core.models.unused_weights import OUTPUT, check_unused

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def fill(model: TFPreTrainedModel, source: Model) -> None:
    """Set the variables of a built model from the checkpoint in a folder or on the Hub.

    Raises:
        ModelError: the weights cannot be read, do not fit, are not all there, or are more than the model has.
    """
    files = _weight_files(source.name_or_path, source.revision)
    if not files:
        _fill_from_tensorflow(model, source, None)
    else:
        try:
            archive = _Archive(files)
            if archive.layout == "tf":
                _fill_from_tensorflow(model, source, archive)
            else:
                _fill_from_pytorch(model, source, archive)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{source.name_or_path}: its weights cannot be read: {error}") from error


def draw(model: TFPreTrainedModel, seed: int) -> None:
    """Set the variables of a new model to the first weights that every backend has, where the core knows them."""
    set_all(model, lambda name, own: first_weight(name, own.shape, model.config, seed=seed))


def set_all(model: TFPreTrainedModel, value: Callable[[str, np.ndarray], np.ndarray | None]) -> None:
    """Set each variable to what `value` makes of its PyTorch name and what it is; where that is None it stays."""
    state = {name: own if (new := value(name, own)) is None else new for name, own in _exported(model)}
    rename = getattr(model, "tf_to_pt_weight_rename", None)
    load_pytorch_state_dict_in_tf2_model(
        model, state, tf_inputs=False, tf_to_pt_weight_rename=rename, skip_logger_warnings=True
    )


def write(model: TFPreTrainedModel, file: Path) -> None:
    """Write the weights, and compare what is on disk with the model.

    Raises:
        OutputError: they differ.
    """
    weights = dict(_exported(model))
    save_file(weights, file, metadata={"format": "pt"})
    _sync(file)
    _check_written(weights, file)


def exported_slots(
    model: TFPreTrainedModel, slot: Callable[[tf.Variable], tf.Variable | None]
) -> dict[str, np.ndarray]:
    """What an optimizer keeps of trained variables, if it does, named and shaped as PyTorch has the parameter."""
    trained = {variable.ref() for variable in model.trainable_variables}  # Not those of a layer that is not trained.
    named = (
        (name, slot(variable), transpose) for name, variable, transpose in _named(model) if variable.ref() in trained
    )
    return {name: _to_pytorch(name, kept.numpy(), transpose) for name, kept, transpose in named if kept is not None}


def assign_slots(
    model: TFPreTrainedModel, slot: Callable[[tf.Variable], tf.Variable], arrays: Mapping[str, np.ndarray]
) -> None:
    """The opposite of `exported_slots`."""
    for name, variable, transpose in _named(model):
        if name in arrays:
            slot(variable).assign(np.reshape(apply_transpose(transpose, arrays[name]), variable.shape))


def pytorch_names(model: TFPreTrainedModel) -> dict[str, tf.Variable]:
    """The variables of a built model under the names of PyTorch's parameters; a tied head has no entry."""
    return {name: variable for name, variable, _ in _named(model)}


def _weight_files(name: str, revision: str) -> list[Path]:
    """The PyTorch-layout safetensors files of a folder or a repository, downloaded; empty if it has none."""
    if single := _file(name, WEIGHTS, revision):
        return [single]
    index = _file(name, INDEX, revision)
    if index is None:
        return []
    shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    found = {shard: _file(name, shard, revision) for shard in shards}
    if absent := [shard for shard, path in found.items() if path is None]:
        raise ModelError(f"{name}: {INDEX} names files that are not there: {', '.join(absent)}")
    return list(found.values())


def _file(name: str, filename: str, revision: str) -> Path | None:
    try:
        found = cached_file(name, filename, revision=revision, _raise_exceptions_for_missing_entries=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: {filename} cannot be fetched: {error}") from error
    return Path(found) if found else None


class _Archive:
    """Tensors of one or more safetensors files, read one at a time as NumPy arrays; bfloat16 comes as float32."""

    def __init__(self, files: list[Path]) -> None:
        self._handles = [safe_open(file, framework="np") for file in files]
        self._where = {key: handle for handle in self._handles for key in handle.keys()}  # noqa: SIM118
        self.layout = (self._handles[0].metadata() or {}).get("format")

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def types(self) -> Iterator[tuple[str, str]]:
        """The name of each tensor, and what safetensors calls the type of its numbers."""
        return ((key, handle.get_slice(key).get_dtype()) for key, handle in self._where.items())

    def get_tensor(self, key: str) -> np.ndarray:
        """Under this name `load_pytorch_state_dict_in_tf2_model` looks for a lazy archive."""
        array = self._where[key].get_tensor(key)
        return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _fill_from_pytorch(model: TFPreTrainedModel, source: Model, archive: _Archive) -> None:
    name, own = source.name_or_path, pytorch_names(model)
    check_types(source, ((key, kind) for key, kind in archive.types() if key in own))
    # Some classes, such as GPT-J's, list their output weights as missing by right: here nothing is. Others ignore an
    # output layer in a file, which may differ from the embeddings: here nothing is ignored before it was looked at.
    model._keys_to_ignore_on_load_missing = model._keys_to_ignore_on_load_unexpected = None
    try:
        _, found = load_pytorch_state_dict_in_tf2_model(
            model,
            archive,
            tf_inputs=False,
            allow_missing_keys=True,
            output_loading_info=True,
            tf_to_pt_weight_rename=getattr(model, "tf_to_pt_weight_rename", None),
            skip_logger_warnings=True,
        )
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        raise ModelError(f"{name}: its weights do not fit its configuration: {error}") from error
    _refuse_missing(name, found["missing_keys"])
    unused = _without_ignored(model, found["unexpected_keys"])
    check_unused(source, unused, archive.get_tensor, lambda: model.get_input_embeddings().weights[0].numpy())


def _without_ignored(model: TFPreTrainedModel, names: Iterable[str]) -> list[str]:
    """Names without those that the class is made to ignore, but for output layers."""
    patterns = type(model)._keys_to_ignore_on_load_unexpected or []
    return [name for name in names if OUTPUT.search(name) or not any(re.search(pattern, name) for pattern in patterns)]


def _refuse_missing(name: str, missing: list[str]) -> None:
    if missing:
        some = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise ModelError(f"{name}: the checkpoint lacks {some}; a model of another type, or an incomplete download?")


def _fill_from_tensorflow(model: TFPreTrainedModel, source: Model, archive: _Archive | None) -> None:
    """Copy the weights of a checkpoint in TensorFlow's own layout."""
    name, revision = source.name_or_path, source.revision
    native = next((file for file in (WEIGHTS, INDEX, "tf_model.h5") if _file(name, file, revision)), None)
    if native is None:
        _refuse_other_formats(name, revision)
    other, found = type(model).from_pretrained(
        name,
        config=model.config,
        revision=revision,
        use_safetensors=native != "tf_model.h5",
        output_loading_info=True,
    )
    _refuse_missing(name, found["missing_keys"])
    named = {_pytorch_name(unused): unused for unused in found["unexpected_keys"]}
    check_unused(
        source,
        named,
        lambda unused: archive.get_tensor(named[unused]) if archive else np.zeros(0, np.float32),
        lambda: other.get_input_embeddings().weights[0].numpy(),
    )
    model.set_weights(other.get_weights())


def _pytorch_name(name: str) -> str:
    """What PyTorch calls a weight in a file, where the name of the model is left out before it."""
    found, _ = convert_tf_weight_name_to_pt_weight_name(f"model/{name}", tf_weight_shape=())
    return str(found)


def _refuse_other_formats(name: str, revision: str) -> None:
    for file in ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5.index.json", "flax_model.msgpack"):
        if _has_file(name, file, revision):
            raise ModelError(
                f"{name}: its only weights are {file}, and this backend does not read pickled or converted weights: "
                f"it needs {WEIGHTS}, as save_pretrained writes it"
            )
    raise ModelError(f"{name}: it has no {WEIGHTS}")


def _has_file(name: str, filename: str, revision: str) -> bool:
    """Whether a folder or a repository has a file, which is not downloaded: pickles stay where they are."""
    try:
        return has_file(name, filename, revision=revision)
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: cannot check for {filename}: {error}") from error


def _exported(model: TFPreTrainedModel) -> Iterator[tuple[str, np.ndarray]]:
    """Each weight as PyTorch has it: its name, and a contiguous float32 array."""
    for name, variable, transpose in _named(model):
        yield name, _to_pytorch(name, variable.numpy(), transpose)


def _to_pytorch(name: str, array: np.ndarray, transpose: TransposeType) -> np.ndarray:
    array = apply_transpose(transpose, array, pt_to_tf=False)
    # TFConv1D keeps its bias as (1, n), PyTorch as (n,).
    if name.endswith("bias") and array.ndim == 2 and array.shape[0] == 1:
        array = array[0]
    return np.ascontiguousarray(array)


def _named(model: TFPreTrainedModel) -> list[tuple[str, tf.Variable, TransposeType]]:
    named = {}
    for variable in model.weights:
        name, transpose = convert_tf_weight_name_to_pt_weight_name(variable.name, tf_weight_shape=variable.shape)
        if name in named:
            raise ModelError(f"{type(model).__name__} has two weights that PyTorch would call {name}")
        named[name] = (name, variable, transpose)
    return list(named.values())


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _check_written(weights: dict[str, np.ndarray], file: Path) -> None:
    with safe_open(file, framework="np") as written:
        same = sorted(written.keys()) == sorted(weights)
        wrong = [name for name in weights if not (same and _identical(written.get_tensor(name), weights[name]))]
    if wrong:
        raise OutputError(f"{file} was not written correctly (first in {wrong[0]}): is the disk full or failing?")


def _identical(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal bit for bit, so that NaN equals itself."""
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()
