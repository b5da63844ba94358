"""The state of a training beside its weights: the optimizer's moments and the dropout generators."""

from functools import partial
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
"""The state of the dropout generators, which no other backend can use."""


def write(folder: Path, model: TFPreTrainedModel, optimizer: AdamWeightDecay) -> None:
    """Write the model, and all that a resumed training needs for its next step to be the same bit for bit."""
    modeling.save(model, folder)
    checkpoints.write_moments(folder, _moments(model, optimizer))
    save_file({name: np.asarray(state) for name, state in _dropout(model).items()}, folder / DROPOUT)


def restore(folder: Path, model: TFPreTrainedModel, optimizer: AdamWeightDecay) -> None:
    """Restore the state of a checkpoint, except the weights; one from another backend has no dropout state.

    Raises:
        ModelError: the state is missing, damaged or another model's.
    """
    shapes = {name: array.shape for name, array in weights.exported_slots(model, lambda variable: variable).items()}
    moments = checkpoints.read_moments(folder, shapes)
    named = weights.pytorch_names(model)
    updates = [(named[name], state.updates if state else 0) for name, state in moments.items()]
    optimizer.restore(checkpoints.step_of(folder), updates)
    for slot, kept in (("m", "first"), ("v", "second")):
        arrays = {name: getattr(state, kept) for name, state in moments.items() if state}
        weights.assign_slots(model, partial(optimizer.get_slot, slot_name=slot), arrays)
    if checkpoints.backend_of(folder) == "tf":
        checkpoints.check_files(folder, [DROPOUT])
        _restore_dropout(folder / DROPOUT, _dropout(model))


def _moments(model: TFPreTrainedModel, optimizer: AdamWeightDecay) -> dict[str, checkpoints.Moments | None]:
    first, second = (weights.exported_slots(model, partial(optimizer.moment, slot=slot)) for slot in "mv")
    trained = {variable.ref() for variable in model.trainable_variables}
    return {
        name: checkpoints.Moments(first[name], second[name], optimizer.updates_of(variable)) if name in first else None
        for name, variable in weights.pytorch_names(model).items()
        if variable.ref() in trained
    }


def _restore_dropout(file: Path, generators: dict[str, tf.Variable]) -> None:
    try:
        states = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error
    if states.keys() != generators.keys():
        raise ModelError(f"{file} does not belong to this model, which has {len(generators)} layers with dropout")
    for name, variable in generators.items():
        variable.assign(states[name])


def _dropout(model: TFPreTrainedModel) -> dict[str, tf.Variable]:
    return {f"dropout.{i}": generator.state for i, generator in enumerate(modeling.dropout_generators(model))}
