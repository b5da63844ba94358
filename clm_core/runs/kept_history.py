"""The history that a resumed run continues, and what its next line needs, as a checkpoint has kept them."""

import json
from pathlib import Path
from typing import Any

from clm_core.checkpoints import is_current, run_of
from clm_core.errors import ModelError, OutputError
from clm_core.record import HISTORY_FILE, RUN_FILE
from clm_core.screen.progress import Progress

PENDING_FILE = "pending_losses.json"
"""The file in a checkpoint with the losses since the last line of the history, for the mean in the next one."""


def history_of(checkpoint: Path, step: int, progress: Progress) -> list[dict[str, Any]]:
    """The history of an interrupted run up to the checkpoint it is resumed from, which has it.

    What the run has after that is made anew; a person hears of what is lost otherwise.

    Raises:
        OutputError: there is only that of the run, of an earlier clm, and it cannot be read.
    """
    run, kept = run_of(checkpoint), checkpoint / HISTORY_FILE
    if not kept.is_file():
        in_run = run / HISTORY_FILE
        _say_dropped(in_run, progress, whole=True)
        return [line for line in _lines(in_run) if line["step"] <= step] if in_run.is_file() else []
    if (run / RUN_FILE).exists() and not is_current(checkpoint):
        progress.say(f"{run / HISTORY_FILE} is damaged: restored from {checkpoint.name}")
    else:
        _say_dropped(run / HISTORY_FILE, progress)
    return [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]


def pending_of(checkpoint: Path | None) -> dict[str, Any]:
    """What `add_to_checkpoint` wrote, or nothing; an earlier clm wrote less, or a list of losses alone.

    Raises:
        ModelError: it cannot be read.
    """
    file = checkpoint / PENDING_FILE if checkpoint else None
    nothing = {"loss": [], "auxiliary_loss": [], "evaluation_due": False, "spikes": None}
    if file is None or not file.is_file():
        return nothing
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {**nothing, **(found if isinstance(found, dict) else {"loss": list(map(float, found))})}
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelError(f"{file} is damaged ({error}): use another checkpoint") from None


def _say_dropped(file: Path, progress: Progress, *, whole: bool = False) -> None:
    """Say which lines of a history are none; of one that is read as a `whole`, only the last can be one."""
    lines = file.read_bytes().split(b"\n") if file.is_file() and not file.is_symlink() else []
    for number, line in enumerate(lines, start=1):
        if line and not _is_entry(line) and (number == len(lines) or not whole):
            shown = line[:40].decode(errors="replace") + "..." * (len(line) > 40)
            how = "was cut off" if number == len(lines) else "is no entry of a history"
            progress.say(f"{file}, line {number} {how}, and is dropped: {shown!r}")


def _is_entry(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _lines(file: Path) -> list[dict[str, Any]]:
    lines = file.read_bytes().split(b"\n")
    found = []
    for number, line in enumerate(lines[:-1], start=1):  # What follows the last line's end was cut off.
        try:
            found.append({"step": 0, **json.loads(line)})
        except (ValueError, TypeError, RecursionError) as error:
            raise OutputError(
                f"{file}, line {number} is damaged ({error}): repair or remove the line, or the file"
            ) from None
    return found
