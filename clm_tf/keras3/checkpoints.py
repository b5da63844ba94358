"""The optimizer's state in a checkpoint, for Keras 3; its dropout has no state to keep."""

from functools import partial
from pathlib import Path

from clm_core import checkpoints
from clm_core.durable.tensors import OnDemand
from clm_core.errors import ModelError
from clm_tf.keras3 import modeling, weights
from clm_tf.keras3.decoder import Decoder
from clm_tf.keras3.optimizers import DefinedOptimizer

TURNED = {"row": "col", "col": "row"}
"""What Adafactor keeps of a matrix, where PyTorch has it transposed."""


def write(folder: Path, model: Decoder, optimizer: DefinedOptimizer) -> None:
    """Write the model, and all that a resumed training needs for its next step to be the same bit for bit."""
    modeling.save(model, folder)
    updates = int(optimizer.iterations.numpy())
    states: dict[str, checkpoints.State | None] = {}
    for name, (variable, flipped) in weights.trained(model).items():
        state = optimizer.state_of(variable)
        parts = {_in_files(part, flipped): partial(weights.array_of, kept, flipped) for part, kept in state.items()}
        states[name] = checkpoints.State(OnDemand(parts), updates)
    checkpoints.write_states(folder, states, optim=optimizer.config.optim)


def restore(folder: Path, model: Decoder, optimizer: DefinedOptimizer) -> None:
    """Restore the state of a checkpoint, except the weights.

    Raises:
        ModelError: the state is missing, damaged, or of another optimizer or model.
    """
    variables = weights.trained(model)
    states = checkpoints.read_states(folder, weights.shapes_of(variables), optim=optimizer.config.optim)
    step = checkpoints.step_of(folder)
    optimizer.build(model.trainable_variables)
    optimizer.iterations.assign(step)
    for name, state in states.items():
        if state is None or state.updates != step:
            raise ModelError(
                f"{folder}: {name} was not updated at each step, and backend keras cannot resume from that: resume "
                f"with --backend {checkpoints.backend_of(folder)}"
            )
        variable, flipped = variables[name]
        for part, kept in optimizer.state_of(variable).items():
            array = state.parts[_in_files(part, flipped)]
            kept.assign(array.T if flipped else array)


def _in_files(part: str, flipped: bool) -> str:
    return TURNED.get(part, part) if flipped else part
