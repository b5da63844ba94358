"""Checkpoints of a run: written whole or not at all, found to resume from, removed; and AdamW's moments in them.

A checkpoint is a folder `checkpoint-STEP`. It counts once it contains `checkpoint.json`, which is written
last; a folder without it, left by a crash, is never used. Weights and AdamW's moments have the same layout from every
backend, so that a training can resume in another framework.
"""

import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clm_core.backend import Saved, TrainingJob
from clm_core.durable import share, sync, sync_folder
from clm_core.errors import ModelError
from clm_core.marker import MARKER, backend_of, mark, read, step_of
from clm_core.paths import likely
from clm_core.schedule import Schedule

__all__ = [
    "MARKER",
    "MOMENTS",
    "NAME",
    "Moments",
    "backend_of",
    "check_continues",
    "check_files",
    "complete",
    "find",
    "list_complete",
    "read_moments",
    "step_of",
    "write_moments",
    "writing",
]

MOMENTS = "optimizer.safetensors"
PREFIX = "checkpoint-"
NAME = re.compile(rf"{PREFIX}(\d+)")

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Moments:
    """AdamW's state of a parameter; the arrays are float32 and shaped as PyTorch has the parameter."""

    first: Array
    second: Array
    updates: int
    """How often the parameter was updated: at every step, except those at which it got no gradient."""


@contextmanager
def writing(job: TrainingJob, step: int) -> Iterator[Path]:
    """A folder for what the backend keeps in the checkpoint of `step`; what the core keeps is added at the end.

    When the block ends well, the checkpoint is on the disk, marked as whole and in its place, those beyond
    `save_total_limit` are gone, and the job has heard that it was saved. Else nothing of it is left.
    """
    final = job.output_dir / f"{PREFIX}{step}"
    with tempfile.TemporaryDirectory(prefix=".checkpoint-", dir=job.output_dir, ignore_cleanup_errors=True) as folder:
        written = Path(folder) / final.name
        written.mkdir()  # A temporary folder itself is for its owner alone.
        yield written
        job.add_to_checkpoint(written)
        share(written)
        sync(written)
        # The marker is the last: a checkpoint that has it is whole, wherever the power was cut.
        mark(written, step=step, backend=job.backend, identity=job.schedule.identity())
        shutil.rmtree(final, ignore_errors=True)
        written.rename(final)
        sync_folder(job.output_dir)
    _prune(job, step)
    job.report(Saved(step=step, path=final))


def complete(job: TrainingJob, step: int, *, backend: str) -> Path:
    """The folder of a checkpoint that `writing` has completed; for backends from when that was a separate step."""
    return job.output_dir / f"{PREFIX}{step}"


def write_moments(folder: Path, moments: Mapping[str, Moments | None]) -> None:
    """Write AdamW's state of each trained parameter under PyTorch's name; None if it never got a gradient."""
    from safetensors.numpy import save_file

    tensors: dict[str, npt.NDArray[Any]] = {}
    for name, state in moments.items():
        tensors[f"t.{name}"] = np.array(state.updates if state else 0)
        if state:
            tensors |= {f"m.{name}": state.first, f"v.{name}": state.second}
    save_file({name: np.asarray(array, order="C") for name, array in tensors.items()}, folder / MOMENTS)


def read_moments(checkpoint: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Moments | None]:
    """What `write_moments` wrote, for the parameters of these names and shapes.

    Raises:
        ModelError: the file is missing or damaged, or has the moments of another model.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    check_files(checkpoint, [MOMENTS])
    file = checkpoint / MOMENTS
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error
    counted = {name[2:]: int(array.flat[0]) for name, array in tensors.items() if name.startswith("t.")}
    # A checkpoint of an earlier clm has none: all parameters had got a gradient, and were taken to get one each time.
    updates = counted or dict.fromkeys(shapes, step_of(checkpoint))
    expected = {f"{kind}.{name}" for name, count in updates.items() if count for kind in "mv"}
    expected |= {f"t.{name}" for name in shapes if counted}
    if different := sorted(tensors.keys() ^ expected):
        raise ModelError(f"{file} does not belong to this model: only one of them has {different[0]}")
    for name, array in tensors.items():
        shape = () if name.startswith("t.") else shapes[name[2:]]
        if array.shape != shape:
            raise ModelError(f"{file}: {name} has shape {array.shape}, but the model needs {shape}")
    return {
        name: Moments(tensors[f"m.{name}"], tensors[f"v.{name}"], count) if count else None
        for name, count in updates.items()
    }


def check_files(checkpoint: Path, names: Sequence[str]) -> None:
    """Make sure that a checkpoint contains what its backend wrote into it.

    Raises:
        ModelError: a file is missing.
    """
    if absent := [name for name in names if not (checkpoint / name).is_file()]:
        raise ModelError(f"{checkpoint} lacks {', '.join(absent)}: use another checkpoint")


def list_complete(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = [path for path in run.iterdir() if NAME.fullmatch(path.name) and (path / MARKER).is_file()]
    return sorted(found, key=_step_in)


def find(path: Path) -> Path:
    """The checkpoint at `path`, or the latest of the run at `path`.

    Raises:
        ModelError: there is no complete checkpoint.
    """
    if (path / MARKER).is_file():
        return path
    if not path.is_dir():
        raise ModelError(f"resume_from_checkpoint: there is no folder {path}{likely(str(path))}")
    if found := list_complete(path):
        return found[-1]
    started = sorted(folder.name for folder in path.iterdir() if NAME.fullmatch(folder.name))
    why = f"{', '.join(started)} never completed" if started else f"no {MARKER} and no checkpoint-STEP folder in it"
    raise ModelError(f"resume_from_checkpoint: {path} is neither a checkpoint nor a run with a checkpoint ({why})")


def check_continues(checkpoint: Path, schedule: Schedule, *, backend: str) -> int:
    """Make sure that a training can resume from the checkpoint, and return the checkpoint's step.

    Raises:
        ModelError: the checkpoint is from a backend that writes no moments for others, its blocks came in another
            order, or nothing is left to do.
    """
    record = read(checkpoint)
    if record["backend"] != backend and not (checkpoint / MOMENTS).is_file():
        raise ModelError(
            f"{checkpoint} was written by backend {record['backend']}, which writes no {MOMENTS} for others: resume "
            f"with --backend {record['backend']}, or start a new training from its weights with --model-name-or-path "
            f"{shlex.quote(str(checkpoint))}"
        )
    for key, value in schedule.identity().items():
        if record.get(key) != value:
            raise ModelError(
                f"{checkpoint} was trained with {key} {record.get(key)}, this run has {value}: use the same"
            )
    step: int = record["step"]
    if step >= schedule.total_steps:
        raise ModelError(
            f"{checkpoint} has already finished its {schedule.total_steps} steps: "
            "raise --max-steps or --num-train-epochs"
        )
    return step


def _prune(job: TrainingJob, step: int) -> None:
    """Remove the oldest checkpoints beyond `save_total_limit`."""
    if job.config.save_total_limit:
        # Later checkpoints exist when a run is repeated from an earlier one: they are not old, and not counted.
        until = [path for path in list_complete(job.output_dir) if _step_in(path) <= step]
        for old in until[: -job.config.save_total_limit]:
            shutil.rmtree(old)


def _step_in(folder: Path) -> int:
    return int(folder.name.removeprefix(PREFIX))
