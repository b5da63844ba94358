"""The optimizer's state in a checkpoint, for TensorFlow."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from transformers import TFPreTrainedModel

from clm_core import checkpoints
from clm_core.durable.tensors import OnDemand
from clm_core.optimizer import rule_of
from clm_tf import modeling, weights
from clm_tf.optimizers import StepOptimizer

TURNED = {"row": "col", "col": "row"}
"""What Adafactor keeps of a matrix, where PyTorch has it transposed."""


def write(folder: Path, model: TFPreTrainedModel, optimizer: StepOptimizer) -> None:
    """Write the model, and all that a resumed training needs for its next step to be the same bit for bit."""
    modeling.save(model, folder)
    checkpoints.write_states(folder, _states(model, optimizer), optim=optimizer.optim)


def restore(folder: Path, model: TFPreTrainedModel, optimizer: StepOptimizer) -> None:
    """Restore the state of a checkpoint, except the weights.

    Raises:
        ModelError: the state is missing, damaged, or of another optimizer or model.
    """
    shapes = {name: array.shape for name, array in weights.trained(model).items()}
    states = checkpoints.read_states(folder, shapes, optim=optimizer.optim)
    named, turned = weights.pytorch_names(model), weights.transposed(model)
    updates = [(named[name], state.updates if state else 0) for name, state in states.items()]
    optimizer.restore(checkpoints.step_of(folder), updates)
    for part in _parts(shapes, optimizer):
        found = {name: state.parts.get(_in_files(part, name in turned)) for name, state in states.items() if state}
        arrays = {name: array for name, array in found.items() if array is not None}
        weights.assign_slots(model, partial(optimizer.get_slot, slot_name=part), arrays)


def _states(model: TFPreTrainedModel, optimizer: StepOptimizer) -> dict[str, checkpoints.State | None]:
    shapes = {name: array.shape for name, array in weights.trained(model).items()}
    turned = weights.transposed(model)
    kept: dict[str, dict[str, Callable[[], np.ndarray]]] = {name: {} for name in shapes}
    for part in _parts(shapes, optimizer):
        for name, make in weights.exported_slots(model, partial(optimizer.moment, slot=part)).makers.items():
            kept[name][_in_files(part, name in turned)] = make
    named = weights.pytorch_names(model)
    return {
        name: checkpoints.State(OnDemand(parts), optimizer.updates_of(named[name])) if parts else None
        for name, parts in kept.items()
    }


def _parts(shapes: dict[str, tuple[int, ...]], optimizer: StepOptimizer) -> list[str]:
    """What the optimizer keeps of some parameter."""
    return sorted(
        {part for name, shape in shapes.items() for part in rule_of(optimizer.optim, name, shape).state(shape)}
    )


def _in_files(part: str, turned: bool) -> str:
    return TURNED.get(part, part) if turned else part
