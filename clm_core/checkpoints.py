"""Checkpoints of a run: complete or not there, the last one found, the old ones removed.

A checkpoint is a folder `checkpoint-STEP`. It counts once it holds `checkpoint.json`, which is written
last; what a crash left without it is never resumed from.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clm_core.backend import TrainingJob
from clm_core.errors import ModelError
from clm_core.schedule import Schedule

MARKER = "checkpoint.json"
NAME = re.compile(r"checkpoint-(\d+)")


@contextmanager
def writing(job: TrainingJob, step: int) -> Iterator[Path]:
    """A temporary folder that becomes the checkpoint of `step` when the block ends well, and else vanishes."""
    with tempfile.TemporaryDirectory(prefix=".checkpoint-", dir=job.output_dir, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
        Path(folder).chmod(0o755)  # A temporary folder is for its owner alone.
        final = job.output_dir / f"checkpoint-{step}"
        shutil.rmtree(final, ignore_errors=True)
        Path(folder).rename(final)


def complete(job: TrainingJob, step: int, *, backend: str) -> Path:
    """Mark the checkpoint of `step` as whole, remove those beyond `save_total_limit`, and return its folder."""
    folder = job.output_dir / f"checkpoint-{step}"
    job.add_to_checkpoint(folder)
    record = {"step": step, "backend": backend, **job.schedule.identity()}
    temporary = folder / f".{MARKER}"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(record, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(folder / MARKER)
    if job.config.save_total_limit:
        # Those after this step are there when a run is done again from an earlier one: not old, and not counted.
        until = [path for path in list_complete(job.output_dir) if _step_in(path) <= step]
        for old in until[: -job.config.save_total_limit]:
            shutil.rmtree(old)
    return folder


def step_of(checkpoint: Path) -> int:
    """How many updates of the weights a whole checkpoint has seen.

    Raises:
        ModelError: its marker cannot be read.
    """
    step: int = _record(checkpoint)["step"]
    return step


def list_complete(run: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    found = [path for path in run.iterdir() if NAME.fullmatch(path.name) and (path / MARKER).is_file()]
    return sorted(found, key=_step_in)


def find(place: Path) -> Path:
    """The checkpoint at `place`, which is one, or a run that has some.

    Raises:
        ModelError: there is no whole checkpoint.
    """
    if (place / MARKER).is_file():
        return place
    if not place.is_dir():
        raise ModelError(f"resume_from_checkpoint: there is no folder {place}")
    if found := list_complete(place):
        return found[-1]
    started = sorted(path.name for path in place.iterdir() if NAME.fullmatch(path.name))
    why = f"{', '.join(started)} never got complete" if started else f"no {MARKER} in it, and no checkpoint-STEP folder"
    raise ModelError(f"resume_from_checkpoint: {place} is neither a checkpoint nor a run that has one ({why})")


def check_continues(checkpoint: Path, schedule: Schedule, *, backend: str) -> int:
    """Make sure that a training goes on where the checkpoint stopped, and return the step that it stopped at.

    Raises:
        ModelError: the checkpoint is another backend's, its blocks came in another order, or nothing is left to do.
    """
    record = _record(checkpoint)
    if record["backend"] != backend:
        raise ModelError(
            f"{checkpoint} was written by backend {record['backend']}: resume with --backend {record['backend']}, or "
            f"start a new training from its weights with --model-name-or-path {checkpoint}"
        )
    for key, value in schedule.identity().items():
        if record.get(key) != value:
            raise ModelError(
                f"{checkpoint} was trained with {key} {record.get(key)}, this run has {value}: use the same"
            )
    step: int = record["step"]
    if step >= schedule.total_steps:
        raise ModelError(
            f"{checkpoint} is at the end of its {schedule.total_steps} steps already: "
            "raise --max-steps or --num-train-epochs"
        )
    return step


def _step_in(folder: Path) -> int:
    return int(folder.name.removeprefix("checkpoint-"))


def _record(checkpoint: Path) -> dict[str, Any]:
    try:
        record = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
        return {**record, "step": int(record["step"]), "backend": str(record["backend"])}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{checkpoint / MARKER} is damaged ({error}): use another checkpoint") from None
