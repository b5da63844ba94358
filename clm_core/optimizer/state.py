"""The state of an optimizer in a checkpoint: which parts a parameter has, written and read by their names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clm_core.durable.hashing import hashed_beside
from clm_core.durable.tensors import OnDemand, write_tensors
from clm_core.errors import ModelError
from clm_core.marker import step_of
from clm_core.optimizer.rules import ADAMW, Shape, is_adamw, rule_of

FILE = "optimizer.safetensors"

COUNT = "t"
"""What the number of a parameter's updates is called, as `m` and `v` are its moments."""

OPTIM = "optim"
"""The entry of the file's metadata that names the optimizer; without it, it is AdamW."""

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class State:
    """What an optimizer keeps of a parameter; the arrays are float32, and follow the parameter's shape in PyTorch."""

    parts: Mapping[str, Array]
    """By name, those of the parameter's `Rule`: `m` and `v`, `row` and `col`, `v`, or `momentum`.

    To be written, it may make each when it is asked for, as `clm_core.durable.tensors.OnDemand` does.
    """
    updates: int
    """How often the parameter was updated: at every step, except those at which it got no gradient."""


@dataclass(frozen=True)
class Moments:
    """AdamW's state of a parameter; the arrays are float32 and shaped as PyTorch has the parameter."""

    first: Array
    second: Array
    updates: int
    """As of a `State`."""


def write_states(folder: Path, states: Mapping[str, State | None], *, optim: str) -> None:
    """Write the state of each trained parameter under PyTorch's name; None if it never got a gradient."""
    tensors: dict[str, Callable[[], npt.NDArray[Any]]] = {}
    for name, state in states.items():
        tensors[f"{COUNT}.{name}"] = partial(np.array, state.updates if state else 0, np.int64)
        if state:
            tensors |= {f"{part}.{name}": partial(state.parts.__getitem__, part) for part in state.parts}
    with hashed_beside(folder):  # The weights, which every backend writes first.
        write_tensors(folder / FILE, OnDemand(tensors), None if is_adamw(optim) else {OPTIM: optim})


def read_states(checkpoint: Path, shapes: Mapping[str, Shape], *, optim: str) -> dict[str, State | None]:
    """What `write_states` wrote, for the parameters of these names and shapes.

    Raises:
        ModelError: the file is missing or damaged, or has the state of another optimizer or another model.
    """
    from safetensors import SafetensorError, safe_open

    check_files(checkpoint, [FILE])
    file = checkpoint / FILE
    try:
        with safe_open(file, "numpy") as opened:
            written = (opened.metadata() or {}).get(OPTIM, ADAMW)
            _check_optimizer(file, written, optim)
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error
    counted = {name[2:]: int(array.flat[0]) for name, array in tensors.items() if name.startswith(f"{COUNT}.")}
    # A checkpoint of an earlier clm has none: all parameters had got a gradient, and were taken to get one each time.
    updates = counted or dict.fromkeys(shapes, step_of(checkpoint))
    expected: dict[str, Shape] = {f"{COUNT}.{name}": () for name in shapes if counted}
    parts = {name: rule_of(optim, name, shape).state(shape) for name, shape in shapes.items()}
    for name in updates.keys() & parts.keys():
        expected |= {f"{part}.{name}": shape for part, shape in parts[name].items() if updates[name]}
    if different := sorted(tensors.keys() ^ expected.keys()):
        raise ModelError(f"{file} does not belong to this model: only one of them has {different[0]}")
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise ModelError(f"{file}: {name} has shape {tensors[name].shape}, but the model needs {shape}")
    return {
        name: State({part: tensors[f"{part}.{name}"] for part in parts[name]}, count) if count else None
        for name, count in updates.items()
    }


def write_moments(folder: Path, moments: Mapping[str, Moments | None]) -> None:
    """Write AdamW's state of each trained parameter under PyTorch's name; None if it never got a gradient."""
    states = {
        name: State({"m": kept.first, "v": kept.second}, kept.updates) if kept else None
        for name, kept in moments.items()
    }
    write_states(folder, states, optim=ADAMW)


def read_moments(checkpoint: Path, shapes: Mapping[str, Shape]) -> dict[str, Moments | None]:
    """What `write_moments` wrote, for the parameters of these names and shapes.

    Raises:
        ModelError: the file is missing or damaged, or has the state of another optimizer or another model.
    """
    states = read_states(checkpoint, shapes, optim=ADAMW)
    return {
        name: Moments(state.parts["m"], state.parts["v"], state.updates) if state else None
        for name, state in states.items()
    }


def check_files(checkpoint: Path, names: Sequence[str]) -> None:
    """Make sure that a checkpoint contains what its backend wrote into it.

    Raises:
        ModelError: a file is missing.
    """
    if absent := [name for name in names if not (checkpoint / name).is_file()]:
        raise ModelError(f"{checkpoint} lacks {', '.join(absent)}: use another checkpoint")


def _check_optimizer(file: Path, written: str, wanted: str) -> None:
    if written != wanted and not (is_adamw(written) and is_adamw(wanted)):
        raise ModelError(
            f"{file} has the state of optimizer {written}, and {wanted} cannot resume from it: resume with --optim "
            f"{written}, or start a new training from its weights with --model-name-or-path"
        )
