"""checkpoint.json, the marker of a checkpoint, written last: its step, its backend, and the sums of its files."""

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clm_core import durable
from clm_core.durable import checksums
from clm_core.errors import ModelError

MARKER = "checkpoint.json"
PREFIX = "checkpoint-"
NAME = re.compile(rf"{PREFIX}(\d+)")
FILES = "files"
"""The key of the sums of the files, which an earlier clm did not write."""
CHOSEN = "chosen"
"""The key of what the backend had decided by itself, if there was anything."""

AGAIN = ": use another checkpoint"
"""The end of the error of a marker that cannot be read."""


def mark(
    checkpoint: Path, *, step: int, backend: str, identity: Mapping[str, int | str], chosen: Mapping[str, str]
) -> None:
    """Say that a checkpoint is whole, with the sums of its files as they are now, which are on the disk then."""
    listed = checksums.list_files(checkpoint, each=durable.sync_file)
    durable.sync_names(checkpoint)
    record = {"step": step, "backend": backend, **identity, **({CHOSEN: chosen} if chosen else {}), FILES: listed}
    durable.replace(checkpoint / MARKER, json.dumps(checksums.seal(record), indent=2))


def list_named(run: Path) -> list[Path]:
    """What has the name of a checkpoint in the folder of a run, oldest first; nothing if there is no folder."""
    found = [path for path in run.iterdir() if NAME.fullmatch(path.name)] if run.is_dir() else []
    return sorted(found, key=step_in)


def step_in(folder: Path) -> int:
    """The step that the name of a checkpoint says; 0 if somebody has named it otherwise."""
    named = NAME.fullmatch(folder.name)
    return int(named[1]) if named else 0


def backend_of(checkpoint: Path) -> str:
    """The name of the backend that wrote a complete checkpoint.

    Raises:
        ModelError: its marker cannot be read.
    """
    name: str = read(checkpoint)["backend"]
    return name


def step_of(checkpoint: Path) -> int:
    """The step at which a complete checkpoint was written.

    Raises:
        ModelError: its marker cannot be read.
    """
    step: int = read(checkpoint)["step"]
    return step


def chosen_in(checkpoint: Path) -> dict[str, str]:
    """What the backend that wrote a complete checkpoint had decided by itself, as in `TrainingJob.chosen`.

    Raises:
        ModelError: its marker cannot be read.
    """
    found = read(checkpoint).get(CHOSEN)
    return found if isinstance(found, dict) else {}


def faults(checkpoint: Path) -> list[str]:
    """What is damaged in a checkpoint, a line for each file; nothing if it is as it was written, or has no sums."""
    try:
        record = read(checkpoint)
    except ModelError as error:
        return [str(error).removeprefix(f"{checkpoint}{os.sep}").removesuffix(AGAIN)]
    named = NAME.fullmatch(checkpoint.absolute().name)
    misplaced = [f"{MARKER} is of step {record['step']}"] if named and int(named[1]) != record["step"] else []
    return [*misplaced, *checksums.faults(checkpoint, record.get(FILES, {}))]


def has_sums(checkpoint: Path) -> bool:
    """Whether a complete checkpoint can show that it is as it was written; those of an earlier clm cannot."""
    return FILES in read(checkpoint)


def read(checkpoint: Path) -> dict[str, Any]:
    """What the marker of a whole checkpoint says.

    Raises:
        ModelError: it cannot be read, or was changed.
    """
    try:
        record = checksums.read_record(checkpoint / MARKER)
        if {FILES, checksums.SEAL} & record.keys() and not checksums.is_sealed(record):
            raise ValueError("it was changed")
        # Those of an earlier clm, which always dropped nothing, have the two factors of a step.
        factors = [record.get(name) for name in ("per_device_train_batch_size", "gradient_accumulation_steps")]
        earlier = {"dataloader_drop_last": False, "train_batch_size": math.prod(filter(None, factors))}
        return {**earlier, **record, "step": _step(record["step"]), "backend": str(record["backend"])}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{checkpoint / MARKER} is damaged ({error}){AGAIN}") from None


def _step(value: Any) -> int:
    step = int(value)
    if step < 0:
        raise ValueError(f"step {step}")
    return step
