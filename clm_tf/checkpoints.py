"""The state of a training beside its weights: the optimizer's moments."""

from functools import partial
from pathlib import Path

from transformers import TFPreTrainedModel

from clm_core import checkpoints
from clm_tf import modeling, weights
from clm_tf.optimization import AdamWeightDecay


def write(folder: Path, model: TFPreTrainedModel, optimizer: AdamWeightDecay) -> None:
    """Write the model, and all that a resumed training needs for its next step to be the same bit for bit."""
    modeling.save(model, folder)
    checkpoints.write_moments(folder, _moments(model, optimizer))


def restore(folder: Path, model: TFPreTrainedModel, optimizer: AdamWeightDecay) -> None:
    """Restore the state of a checkpoint, except the weights.

    Raises:
        ModelError: the state is missing, damaged or another model's.
    """
    shapes = {name: array.shape for name, array in weights.trained(model).items()}
    moments = checkpoints.read_moments(folder, shapes)
    named = weights.pytorch_names(model)
    updates = [(named[name], state.updates if state else 0) for name, state in moments.items()]
    optimizer.restore(checkpoints.step_of(folder), updates)
    for slot, kept in (("m", "first"), ("v", "second")):
        arrays = {name: getattr(state, kept) for name, state in moments.items() if state}
        weights.assign_slots(model, partial(optimizer.get_slot, slot_name=slot), arrays)


def _moments(model: TFPreTrainedModel, optimizer: AdamWeightDecay) -> dict[str, checkpoints.Moments | None]:
    first, second = (weights.exported_slots(model, partial(optimizer.moment, slot=slot)) for slot in "mv")
    trained = {variable.ref() for variable in model.trainable_variables}
    return {
        name: checkpoints.Moments(first[name], second[name], optimizer.updates_of(variable)) if name in first else None
        for name, variable in weights.pytorch_names(model).items()
        if variable.ref() in trained
    }
