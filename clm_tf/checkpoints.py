"""The state of a training beside its weights: the optimizer's moments and the dropout generators."""

import os
from pathlib import Path

import numpy as np
import tensorflow as tf
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from transformers import TFPreTrainedModel

from clm_core import checkpoints
from clm_core.errors import ModelError
from clm_tf import modeling, weights
from clm_tf.optimization import AdamWeightDecay

DROPOUT = "dropout.safetensors"
"""The state of the generators that dropout is drawn from, which no other backend has a use for."""


def write(folder: Path, model: TFPreTrainedModel, optimizer: AdamWeightDecay) -> None:
    """Write the model, and all that a continued training needs for its next update to be the same bit for bit."""
    modeling.save(model, folder)
    first, second = (
        weights.exported_slots(model, lambda variable, slot=slot: optimizer.get_slot(variable, slot)) for slot in "mv"
    )
    checkpoints.write_moments(folder, {name: (first[name], second[name]) for name in first})
    save_file({name: np.asarray(state) for name, state in _dropout(model).items()}, folder / DROPOUT)
    with (folder / DROPOUT).open("rb") as file:
        os.fsync(file.fileno())


def restore(folder: Path, model: TFPreTrainedModel, optimizer: AdamWeightDecay) -> None:
    """Set the state of a checkpoint, except for the weights; of another backend's it has no dropout.

    Raises:
        ModelError: the state is missing, damaged or another model's.
    """
    optimizer.create_slots(model.trainable_variables)
    shapes = {name: array.shape for name, array in weights.exported_slots(model, lambda variable: variable).items()}
    moments = checkpoints.read_moments(folder, shapes)
    for place, slot in enumerate("mv"):
        arrays = {name: pair[place] for name, pair in moments.items()}
        weights.assign_slots(model, lambda variable, slot=slot: optimizer.get_slot(variable, slot), arrays)
    optimizer.iterations.assign(checkpoints.step_of(folder))
    if checkpoints.backend_of(folder) == "tf":
        _restore_dropout(folder / DROPOUT, _dropout(model))


def _restore_dropout(file: Path, generators: dict[str, tf.Variable]) -> None:
    try:
        states = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error
    if states.keys() != generators.keys():
        raise ModelError(f"{file} is not the state of this model, which has {len(generators)} layers with dropout")
    for name, variable in generators.items():
        variable.assign(states[name])


def _dropout(model: TFPreTrainedModel) -> dict[str, tf.Variable]:
    return {f"dropout.{i}": generator.state for i, generator in enumerate(modeling.dropout_generators(model))}
