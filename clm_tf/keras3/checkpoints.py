"""The state of a training beside its weights: the optimizer's moments. Dropout has none."""

from pathlib import Path

from clm_core import checkpoints
from clm_core.errors import ModelError
from clm_tf.keras3 import modeling, weights
from clm_tf.keras3.decoder import Decoder
from clm_tf.keras3.optimization import AdamW


def write(folder: Path, model: Decoder, optimizer: AdamW) -> None:
    """Write the model, and all that a resumed training needs for its next step to be the same bit for bit."""
    modeling.save(model, folder)
    updates = int(optimizer.iterations.numpy())
    moments: dict[str, checkpoints.Moments | None] = {}
    for name, (variable, flipped) in weights.trained(model).items():
        first, second = (weights.array_of(kept, flipped) for kept in optimizer.moments_of(variable))
        moments[name] = checkpoints.Moments(first, second, updates)
    checkpoints.write_moments(folder, moments)


def restore(folder: Path, model: Decoder, optimizer: AdamW) -> None:
    """Restore the state of a checkpoint, except the weights.

    Raises:
        ModelError: the state is missing, damaged or another model's.
    """
    variables = weights.trained(model)
    moments = checkpoints.read_moments(folder, weights.shapes_of(variables))
    step = checkpoints.step_of(folder)
    optimizer.build(model.trainable_variables)
    optimizer.iterations.assign(step)
    for name, state in moments.items():
        if state is None or state.updates != step:
            raise ModelError(
                f"{folder}: {name} was not updated at each step, and backend keras cannot go on from that: resume with "
                f"--backend {checkpoints.backend_of(folder)}"
            )
        variable, flipped = variables[name]
        for kept, array in zip(optimizer.moments_of(variable), (state.first, state.second), strict=True):
            kept.assign(array.T if flipped else array)
