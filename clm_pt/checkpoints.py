"""The state of a training beside its weights: AdamW's moments, and what Trainer needs to read a checkpoint."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, Trainer
from transformers.trainer import TRAINER_STATE_NAME

from clm_core import checkpoints
from clm_core.backend import TrainingJob
from clm_core.errors import ModelError, first_line
from clm_core.models.file_names import join, shapes_in_files, split
from clm_pt.sharding import like, whole

RANDOM = "random_state.safetensors"
"""The generators, where a training is the guide's: its script seeds once, and draws one stream of numbers."""


OfParameters = dict[str, checkpoints.Moments | None]
"""The moments of each trained parameter, by its name in the model; None if it never got a gradient."""


def write(
    folder: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer, *, moments: OfParameters | None = None
) -> None:
    """Write the moments as every backend reads them; they are given where no process alone has all of them."""
    written: dict[str, checkpoints.Moments | None] = {}
    for name, found in (whole_moments(model, optimizer) if moments is None else moments).items():
        shape = tuple(model.get_parameter(name).shape)
        written |= _in_files(name, shape, found, model.config.model_type)
    checkpoints.write_moments(folder, written)


def whole_moments(model: PreTrainedModel, optimizer: torch.optim.Optimizer, *, keep: bool = True) -> OfParameters:
    """The moments that an optimizer has; of a model that is sharded, all processes are to ask for them.

    One that does not `keep` them has a single whole tensor at a time.
    """
    return {name: _moments(optimizer.state.get(it), keep=keep) for name, it in _trained(model).items()}


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


def write_random(folder: Path, device: torch.device) -> None:
    """Write the state of the generators that a training on a device draws from, as tensors."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state()
    save_file(states, folder / RANDOM)


def restore_random(folder: Path, device: torch.device) -> None:
    """Set the generators to what a checkpoint of the guide's training has; another checkpoint has nothing of it.

    Raises:
        ModelError: the file is damaged.
    """
    if not (file := folder / RANDOM).is_file():
        return
    try:
        states = load_file(file)
        torch.set_rng_state(states["cpu"])
        if device.type in states.keys() - {"cpu"}:
            torch.get_device_module(device).set_rng_state(states[device.type])
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise ModelError(f"{file} cannot be read: {first_line(error)}") from error


@contextmanager
def readable(job: TrainingJob, trainer: Trainer) -> Iterator[str | None]:
    """What Trainer is to resume from, if the job resumes: a folder with the step in its own file, and nothing else.

    All else it would read from a checkpoint, some of it pickled, it gets from the job or `restore`.
    """
    if job.resume_from is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="clm-checkpoint-") as folder:
        state = replace(trainer.state, global_step=job.first_step, train_batch_size=job.schedule.share_size)
        state.save_to_json(str(Path(folder) / TRAINER_STATE_NAME))
        yield folder


def _trained(model: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _moments(state: dict[str, torch.Tensor] | None, *, keep: bool) -> checkpoints.Moments | None:
    """What torch's AdamW keeps for a parameter: nothing until it has had a gradient."""
    if not state:
        return None
    found = (whole(state[key]) for key in ("exp_avg", "exp_avg_sq"))
    kept = [tensor.float().cpu().numpy() if keep else np.empty(0, np.float32) for tensor in found]
    return checkpoints.Moments(kept[0], kept[1], int(state["step"])) if keep else None


def _in_files(
    name: str, shape: tuple[int, ...], moments: checkpoints.Moments | None, kind: str
) -> dict[str, checkpoints.Moments | None]:
    if moments is None:
        return dict.fromkeys(shapes_in_files(name, shape, kind))
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
    first, second = (like(torch.tensor(it), parameter) for it in (moments.first, moments.second))
    return {"step": torch.tensor(float(moments.updates)), "exp_avg": first, "exp_avg_sq": second}
