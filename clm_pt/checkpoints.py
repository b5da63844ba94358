"""The state of a training beside its weights: the optimizer's, and what Trainer needs to read a checkpoint."""

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
from clm_core.models.file_names import shapes_in_files
from clm_core.optimizer import ADAMW, rule_of
from clm_pt.adapters import parameters
from clm_pt.optimizers import DefinedOptimizer
from clm_pt.sharding import like, whole

RANDOM = "random_state.safetensors"
"""The generators, where a training is the guide's: its script seeds once, and draws one stream of numbers."""


OfParameters = dict[str, checkpoints.State | None]
"""What the optimizer keeps of each parameter of `clm_pt.adapters.parameters`; None if it never got a gradient."""

OF_TORCH = {"exp_avg": "m", "exp_avg_sq": "v"}
"""What a checkpoint calls the parts of the state of PyTorch's AdamW."""


def write(
    folder: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer, *, moments: OfParameters | None = None
) -> None:
    """Write the state as every backend reads it; it is given where no process alone has all of it."""
    written: dict[str, checkpoints.State | None] = {}
    own, optim = parameters(model), _optim(optimizer)
    for name, found in (whole_moments(model, optimizer) if moments is None else moments).items():
        shape = tuple(own[name].shape)
        written |= _in_files(shapes_in_files(name, shape, model.config.model_type), found, optim)
    checkpoints.write_states(folder, written, optim=optim)


def whole_moments(model: PreTrainedModel, optimizer: torch.optim.Optimizer, *, keep: bool = True) -> OfParameters:
    """The state that an optimizer has; of a model that is sharded, all processes are to ask for it.

    One that does not `keep` them has a single whole tensor at a time.
    """
    return {name: _state(optimizer.state.get(it), keep=keep) for name, it in parameters(model).items()}


def restore(folder: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> None:
    """Set the optimizer's state of a checkpoint, whichever backend wrote it.

    Raises:
        ModelError: the state is missing, damaged, or of another optimizer or model, or there is none for all experts
            together.
    """
    own, kind = _own(optimizer), model.config.model_type
    in_files = {name: shapes_in_files(name, tuple(it.shape), kind) for name, it in parameters(model).items()}
    shapes = {name: shape for each in in_files.values() for name, shape in each.items()}
    found = checkpoints.read_states(folder, shapes, optim=_optim(optimizer))
    for name, parameter in parameters(model).items():
        if state := _in_memory(name, {each: found[each] for each in in_files[name]}):
            if isinstance(own, DefinedOptimizer):
                sizes = own.layout_of(parameter).state_shapes(tuple(parameter.shape))
                parts = {part: torch.tensor(array).reshape(sizes[part]) for part, array in state.parts.items()}
                own.restore(parameter, parts, state.updates)
            else:
                own.state[parameter] = _of_torch(state, parameter)


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


def _own(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """What Accelerate has wrapped."""
    return getattr(optimizer, "optimizer", optimizer)


def _optim(optimizer: torch.optim.Optimizer) -> str:
    own = _own(optimizer)
    return own.config.optim if isinstance(own, DefinedOptimizer) else ADAMW


def _state(state: dict[str, torch.Tensor] | None, *, keep: bool) -> checkpoints.State | None:
    """What an optimizer keeps for a parameter: nothing until it has had a gradient."""
    if not state:
        return None
    found = ((OF_TORCH.get(part, part), whole(tensor)) for part, tensor in state.items() if part != "step")
    kept = {part: tensor.float().cpu().numpy() if keep else np.empty(0, np.float32) for part, tensor in found}
    return checkpoints.State(kept, int(state["step"])) if keep else None


def _in_files(
    shapes: dict[str, tuple[int, ...]], state: checkpoints.State | None, optim: str
) -> dict[str, checkpoints.State | None]:
    """The state of a parameter as that of the tensors, of one shape, that it is in files."""
    if state is None:
        return dict.fromkeys(shapes)
    first, shape = next(iter(shapes.items()))
    sizes = rule_of(optim, first, shape).state(shape)
    parts = {part: array.reshape(len(shapes), *sizes[part]) for part, array in state.parts.items()}
    return {
        name: checkpoints.State({part: array[i] for part, array in parts.items()}, state.updates)
        for i, name in enumerate(shapes)
    }


def _in_memory(name: str, tensors: dict[str, checkpoints.State | None]) -> checkpoints.State | None:
    """The state of a parameter, from that of its tensors in files, one after the other."""
    states = [state for state in tensors.values() if state]
    if not states:
        return None
    updates = {state.updates for state in states}
    if len(states) < len(tensors) or len(updates) > 1:
        raise ModelError(
            f"{name}: its experts were updated at different steps, where each has its own weights; here all have one: "
            "resume with the series of transformers, and the backend, that wrote the checkpoint"
        )
    parts = {part: np.stack([state.parts[part] for state in states]) for part in states[0].parts}
    return checkpoints.State(parts, updates.pop())


def _of_torch(state: checkpoints.State, parameter: torch.nn.Parameter) -> dict[str, torch.Tensor]:
    """The state of PyTorch's AdamW."""
    # Of the parameter's own type, which is bfloat16 for those of an activation of Apertus in any model.
    arrays = {key: state.parts[part].reshape(parameter.shape) for key, part in OF_TORCH.items()}
    tensors = {key: like(torch.tensor(array), parameter) for key, array in arrays.items()}
    # Fused, it counts its steps on the device that it updates.
    return {"step": torch.tensor(float(state.updates), device=parameter.device), **tensors}
