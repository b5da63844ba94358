"""The state of a training beside its weights: the optimizer and the dropout generators."""

import os
from pathlib import Path

import numpy as np
import tensorflow as tf
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from transformers import TFPreTrainedModel

from clm_core.errors import ModelError
from clm_tf import modeling, weights
from clm_tf.optimization import AdamWeightDecay

STATE = "optimizer.safetensors"


def write(folder: Path, model: TFPreTrainedModel, optimizer: AdamWeightDecay) -> None:
    """Write the model, and all that a continued training needs for its next update to be the same bit for bit."""
    modeling.save(model, folder)
    state = {name: np.asarray(variable) for name, variable in _state(model, optimizer).items()}
    save_file(state, folder / STATE)
    with (folder / STATE).open("rb") as file:
        os.fsync(file.fileno())


def restore(folder: Path, model: TFPreTrainedModel, optimizer: AdamWeightDecay) -> None:
    """Set the state that `write` wrote, except for the weights.

    Raises:
        ModelError: the state is missing, damaged or another model's.
    """
    try:
        arrays = load_file(folder / STATE)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder / STATE} cannot be read: {error}") from error
    state = _state(model, optimizer)
    if different := sorted(arrays.keys() ^ state.keys()):
        raise ModelError(f"{folder / STATE} is not the state of this model: {different[0]} is only in one of them")
    for name, variable in state.items():
        if arrays[name].shape != variable.shape:
            raise ModelError(
                f"{folder / STATE}: {name} has shape {arrays[name].shape}, the model's is {variable.shape}"
            )
        variable.assign(arrays[name])


def _state(model: TFPreTrainedModel, optimizer: AdamWeightDecay) -> dict[str, tf.Variable]:
    named = weights.pytorch_names(model)
    trained = {name: variable for name, variable in named.items() if variable.trainable}
    dropout = {f"dropout.{i}": generator.state for i, generator in enumerate(modeling.dropout_generators(model))}
    return {**optimizer.state(trained), **dropout}
