"""Weights in PyTorch's layout: read into a TensorFlow model, and written from one.

The layout on disk is PyTorch's because it is the one that both frameworks, and every version of
transformers, read. transformers' own TensorFlow classes neither read nor write it without torch.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from transformers import TFPreTrainedModel
from transformers.modeling_tf_pytorch_utils import (
    TransposeType,
    apply_transpose,
    convert_tf_weight_name_to_pt_weight_name,
    load_pytorch_state_dict_in_tf2_model,
)

from clm_core.adapters import LORA_A, LORA_B
from clm_core.backend import Model
from clm_core.durable.tensors import OnDemand
from clm_core.errors import ModelError
from clm_core.models.faults import cannot_load, check_finite
from clm_core.models.first_weights import first_weight
from clm_core.models.quantization import check_types
from clm_core.models.stored_file import fetch
from clm_core.models.unused_weights import OUTPUT, check_unused
from clm_core.models.weight_files import StoredWeights, absent, check_whole, find
from clm_tf.projection import adapter_of, kernel_of

NATIVE = "tf_model.h5"
"""A file in TensorFlow's own layout; a safetensors file may be in it too, and says so."""


def fill(model: TFPreTrainedModel, source: Model) -> None:
    """Set the variables of a built model from the checkpoint in a folder or on the Hub.

    Raises:
        ModelError: the weights cannot be read, do not fit, are not all there or not finite, or are more than the model
            has.
    """
    files = find(source)
    stored = StoredWeights(source, files) if files else None
    if stored is None or stored.layout == "tf":
        _fill_from_tensorflow(model, source, stored)
    else:
        _fill_from_pytorch(model, source, stored)
    for name, variable in pytorch_names(model).items():
        array = variable.numpy()
        check_finite(source, name, *((array.min(), array.max()) if array.size else ()))


def draw(model: TFPreTrainedModel, seed: int) -> None:
    """Set the variables of a new model to the first weights that every backend has, where the core knows them."""
    set_all(model, lambda name, own: first_weight(name, own.shape, model.config, seed=seed))


def set_all(model: TFPreTrainedModel, value: Callable[[str, np.ndarray], np.ndarray | None]) -> None:
    """Set each variable to what `value` makes of its PyTorch name and what it is; where that is None it stays."""
    state = {name: own if (new := value(name, own)) is None else new for name, own in exported(model).items()}
    rename = getattr(model, "tf_to_pt_weight_rename", None)
    load_pytorch_state_dict_in_tf2_model(
        model, state, tf_inputs=False, tf_to_pt_weight_rename=rename, skip_logger_warnings=True
    )


def exported(model: TFPreTrainedModel) -> OnDemand:
    """The weights as PyTorch has them: by their names and in their shapes there, contiguous, float32."""
    return OnDemand({name: partial(_array, name, *each) for name, *each in _named(model)})


def shapes(model: TFPreTrainedModel) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights in PyTorch, by their names there."""
    nothing = np.float32(0)
    arrays = (
        (name, np.broadcast_to(nothing, variable.shape), transpose) for name, variable, transpose in _named(model)
    )
    return {name: _to_pytorch(name, array, transpose).shape for name, array, transpose in arrays}


def trained(model: TFPreTrainedModel) -> OnDemand:
    """Of the weights as PyTorch has them, those that a training changes, with what an adapter has."""
    return exported_slots(model, lambda variable: variable)


def freeze(model: TFPreTrainedModel, frozen: Collection[Any]) -> None:
    """Have a training leave these variables, given by their `ref()`, as they are.

    Keras freezes whole layers; where a layer keeps a variable says whether it is trained.
    """
    for layer in model._flatten_layers():
        own: list[tf.Variable] = layer._trainable_weights
        layer._non_trainable_weights.extend(variable for variable in own if variable.ref() in frozen)
        own[:] = [variable for variable in own if variable.ref() not in frozen]


def exported_slots(model: TFPreTrainedModel, slot: Callable[[tf.Variable], tf.Variable | None]) -> OnDemand:
    """What an optimizer keeps of trained variables, if it does, named and shaped as PyTorch has the parameter."""
    trained = {variable.ref() for variable in model.trainable_variables}  # Not those of a layer that is not trained.
    named = (
        (name, slot(variable), transpose) for name, variable, transpose in _named(model) if variable.ref() in trained
    )
    return OnDemand({name: partial(_array, name, *kept) for name, *kept in named if kept[0] is not None})


def assign_slots(
    model: TFPreTrainedModel, slot: Callable[[tf.Variable], tf.Variable], arrays: Mapping[str, np.ndarray]
) -> None:
    """What `exported_slots` makes, read back."""
    for name, variable, transpose in _named(model):
        if name in arrays:
            kept = slot(variable)
            kept.assign(np.reshape(apply_transpose(transpose, arrays[name]), kept.shape))


def transposed(model: TFPreTrainedModel) -> set[str]:
    """The names of what PyTorch has transposed."""
    return {name for name, _, transpose in _named(model) if transpose is TransposeType.SIMPLE}


def pytorch_names(model: TFPreTrainedModel) -> dict[str, tf.Variable]:
    """The variables of a built model under the names of PyTorch's parameters; a tied head has no entry.

    What an adapter has goes by the name of its module, and how the names of the two matrices end.
    """
    return {name: variable for name, variable, _ in _named(model)}


def _fill_from_pytorch(model: TFPreTrainedModel, source: Model, stored: StoredWeights) -> None:
    own = pytorch_names(model)
    if source.vocabulary:
        stored.grow({name: it.shape for name, it in exported(model).items()}, f"{model.base_model_prefix}.")
    check_types(source, ((name, kind) for name, kind in stored.types.items() if name in own))
    # Some classes, such as GPT-J's, list their output weights as missing by right: here nothing is. Others ignore an
    # output layer in a file, which may differ from the embeddings: here nothing is ignored before it was looked at.
    model._keys_to_ignore_on_load_missing = model._keys_to_ignore_on_load_unexpected = None
    try:
        _, found = load_pytorch_state_dict_in_tf2_model(
            model,
            stored,
            tf_inputs=False,
            allow_missing_keys=True,
            output_loading_info=True,
            tf_to_pt_weight_rename=getattr(model, "tf_to_pt_weight_rename", None),
            skip_logger_warnings=True,
        )
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        check_whole(source, [name for name, array in exported(model).items() if stored.shapes.get(name) != array.shape])
        raise cannot_load(source, error) from error
    check_whole(source, found["missing_keys"])
    unused = _without_ignored(model, found["unexpected_keys"])
    check_unused(source, unused, stored.get_tensor, lambda: _input_embeddings(model, stored))


def _input_embeddings(model: TFPreTrainedModel, stored: StoredWeights) -> np.ndarray:
    """As they are in the files, which may have fewer."""
    table = model.get_input_embeddings().weights[0].numpy()
    return table[: stored.rows] if stored.rows else table


def _without_ignored(model: TFPreTrainedModel, names: Iterable[str]) -> list[str]:
    """Names without those that the class is made to ignore, but for output layers."""
    patterns = type(model)._keys_to_ignore_on_load_unexpected or []
    return [name for name in names if OUTPUT.search(name) or not any(re.search(pattern, name) for pattern in patterns)]


def _fill_from_tensorflow(model: TFPreTrainedModel, source: Model, stored: StoredWeights | None) -> None:
    """Copy the weights of a checkpoint in TensorFlow's own layout."""
    if stored is None and fetch(str(source.name_or_path), source.revision, NATIVE) is None:
        raise absent(source)
    if source.vocabulary:
        raise ModelError(
            f"{source.name_or_path}: resize_embeddings does not work on weights in TensorFlow's own layout: save them "
            "in PyTorch's first, such as with clm_tf.load and clm_tf.save"
        )
    other, found = type(model).from_pretrained(
        source.name_or_path,
        config=model.config,
        revision=source.revision,
        use_safetensors=stored is not None,
        output_loading_info=True,
    )
    check_whole(source, found["missing_keys"])
    named = {_pytorch_name(unused): unused for unused in found["unexpected_keys"]}
    check_unused(
        source,
        named,
        lambda unused: stored.get_tensor(named[unused]) if stored else np.zeros(0, np.float32),
        lambda: other.get_input_embeddings().weights[0].numpy(),
    )
    model.set_weights(other.get_weights())


def _pytorch_name(name: str) -> str:
    """What PyTorch calls a weight in a file, where the name of the model is left out before it."""
    found, _ = convert_tf_weight_name_to_pt_weight_name(f"model/{name}", tf_weight_shape=())
    return str(found)


def _array(name: str, variable: tf.Variable, transpose: TransposeType) -> np.ndarray:
    return _to_pytorch(name, variable.numpy(), transpose)


def _to_pytorch(name: str, array: np.ndarray, transpose: TransposeType) -> np.ndarray:
    array = apply_transpose(transpose, array, pt_to_tf=False)
    # TFConv1D keeps its bias as (1, n), PyTorch as (n,).
    if name.endswith("bias") and array.ndim == 2 and array.shape[0] == 1:
        array = array[0]
    return np.ascontiguousarray(array)


def _named(model: TFPreTrainedModel) -> list[tuple[str, tf.Variable, TransposeType]]:
    named, of_adapters = {}, _of_adapters(model)
    for variable in model.weights:
        name, transpose = of_adapters.get(variable.ref()) or convert_tf_weight_name_to_pt_weight_name(
            variable.name, tf_weight_shape=variable.shape
        )
        if name in named:
            raise ModelError(f"{type(model).__name__} has two weights that PyTorch would call {name}")
        named[name] = (name, variable, transpose)
    return list(named.values())


def _of_adapters(model: TFPreTrainedModel) -> dict[Any, tuple[str, TransposeType]]:
    """What PyTorch calls the variables of adapters, by their `ref()`."""
    found = {}
    for layer in model._flatten_layers():
        if adapter := adapter_of(layer):
            kernel = kernel_of(layer)
            name, _ = convert_tf_weight_name_to_pt_weight_name(kernel.name, tf_weight_shape=kernel.shape)
            module = name.removesuffix(".weight")
            found[adapter.a.ref()] = (f"{module}{LORA_A}", TransposeType.SIMPLE)
            found[adapter.b.ref()] = (f"{module}{LORA_B}", TransposeType.SIMPLE)
    return found
