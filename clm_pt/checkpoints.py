"""The state of a training beside its weights: AdamW's moments, and what Trainer needs to read a checkpoint."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedModel, Trainer
from transformers.trainer import TRAINER_STATE_NAME

from clm_core import checkpoints
from clm_core.errors import ModelError
from clm_core.models.file_names import join, shapes_in_files, split

STATE = (checkpoints.MOMENTS, TRAINER_STATE_NAME, "rng_state.pth")
"""What a checkpoint contains besides the weights; Trainer would continue without it."""


def write(folder: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> None:
    """Write the moments as every backend reads them; the rest is Trainer's, or the schedule's at this step."""
    moments: dict[str, checkpoints.Moments | None] = {}
    for name, parameter in _trained(model).items():
        moments |= _in_files(name, parameter, _moments(optimizer.state.get(parameter)), model.config.model_type)
    checkpoints.write_moments(folder, moments)


def restore(folder: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> None:
    """Set the moments of a checkpoint, whichever backend wrote it.

    Raises:
        ModelError: the moments are missing, damaged or another model's, or there are none for all experts together.
    """
    kind, shapes = model.config.model_type, {name: tuple(it.shape) for name, it in _trained(model).items()}
    in_files = {name: shapes_in_files(name, shape, kind) for name, shape in shapes.items()}
    found = checkpoints.read_moments(folder, {name: own for each in in_files.values() for name, own in each.items()})
    for name, parameter in _trained(model).items():
        if moments := _in_memory(name, shapes[name], {each: found[each] for each in in_files[name]}, kind):
            optimizer.state[parameter] = _state(moments, parameter)


def check_complete(folder: Path) -> None:
    """Make sure that a checkpoint of this backend has its state, since Trainer would continue without it.

    Raises:
        ModelError: a file is missing.
    """
    if checkpoints.backend_of(folder) == "pt":
        checkpoints.check_files(folder, STATE)


@contextmanager
def readable(checkpoint: Path | None, trainer: Trainer) -> Iterator[str | None]:
    """A checkpoint as Trainer reads it: with its own file for the step, which another backend does not write.

    That file goes into a folder of links: a checkpoint stays as it was written, and may lie where nobody can write.
    """
    if checkpoint is None or (checkpoint / TRAINER_STATE_NAME).is_file():
        yield str(checkpoint) if checkpoint else None
        return
    with tempfile.TemporaryDirectory(prefix="clm-checkpoint-") as folder:
        for path in checkpoint.iterdir():
            (Path(folder) / path.name).symlink_to(path.absolute())
        size = trainer.args.per_device_train_batch_size
        state = replace(trainer.state, global_step=checkpoints.step_of(checkpoint), train_batch_size=size)
        state.save_to_json(str(Path(folder) / TRAINER_STATE_NAME))
        yield folder


def _trained(model: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _moments(state: dict[str, torch.Tensor] | None) -> checkpoints.Moments | None:
    """What torch's AdamW keeps for a parameter: nothing until it has had a gradient."""
    if not state:
        return None
    first, second = (state[key].float().cpu().numpy() for key in ("exp_avg", "exp_avg_sq"))
    return checkpoints.Moments(first, second, int(state["step"]))


def _in_files(
    name: str, parameter: torch.nn.Parameter, moments: checkpoints.Moments | None, kind: str
) -> dict[str, checkpoints.Moments | None]:
    if moments is None:
        return dict.fromkeys(shapes_in_files(name, tuple(parameter.shape), kind))
    first, second = (split(name, array, kind) for array in (moments.first, moments.second))
    return {each: checkpoints.Moments(first[each], second[each], moments.updates) for each in first}


def _in_memory(
    name: str, shape: tuple[int, ...], parts: dict[str, checkpoints.Moments | None], kind: str
) -> checkpoints.Moments | None:
    """The moments of a parameter, from those that its tensors have in files."""
    moments = {each: part for each, part in parts.items() if part}
    if not moments:
        return None
    updates = {part.updates for part in moments.values()}
    if len(moments) < len(parts) or len(updates) > 1:
        raise ModelError(
            f"{name}: its experts were updated at different steps, where each has its own weights; here all have one: "
            "resume with the series of transformers, and the backend, that wrote the checkpoint"
        )
    first = join(name, shape, kind, lambda each: moments[each].first)
    second = join(name, shape, kind, lambda each: moments[each].second)
    return checkpoints.Moments(first, second, updates.pop())


def _state(moments: checkpoints.Moments, parameter: torch.nn.Parameter) -> dict[str, torch.Tensor]:
    # Of the parameter's own type, which is bfloat16 for those of an activation of Apertus in any model.
    first, second = (torch.zeros_like(parameter).copy_(torch.tensor(it)) for it in (moments.first, moments.second))
    return {"step": torch.tensor(float(moments.updates)), "exp_avg": first, "exp_avg_sq": second}
