"""Finds the checkpoints of a run, and the newest one that is as it was written and that the history leads to."""

import os
from collections.abc import Callable
from pathlib import Path

from clm_core.errors import ModelError
from clm_core.marker import MARKER, NAME, faults, list_named, step_in
from clm_core.paths import in_command, likely
from clm_core.record import HISTORY_FILE


def list_complete(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first; none if it has no folder."""
    return [path for path in list_named(run) if (path / MARKER).is_file()]


def find(path: Path, say: Callable[[str], None] = lambda line: None) -> Path:
    """The checkpoint at `path`, or the latest whole one of the run at `path`; `say` hears which ones are damaged.

    Raises:
        ModelError: there is no complete checkpoint, or it is damaged.
    """
    if (path / MARKER).is_file():
        check_whole(path)
        return path
    if not path.is_dir():
        raise ModelError(f"resume_from_checkpoint: there is no folder {path}{likely(str(path))}")
    if found := newest_whole(path, say):
        return found
    if NAME.fullmatch(path.absolute().name):
        raise ModelError(f"{path} has no {MARKER}: it was never completed, or is damaged: use another checkpoint")
    started = [folder.name for folder in list_named(path)]
    why = f"{', '.join(started)} never completed" if started else f"no {MARKER} and no checkpoint-STEP folder in it"
    raise ModelError(f"resume_from_checkpoint: {path} is neither a checkpoint nor a run with a checkpoint ({why})")


def newest_whole(run: Path, say: Callable[[str], None] = lambda line: None, *, is_needed: bool = True) -> Path | None:
    """The latest checkpoint of a run that is as it was written; `say` hears of each that is not, or has no marker.

    One from before the run was resumed from an earlier step, which the run's history does not lead to, comes last.

    Raises:
        ModelError: the run has checkpoints, all of them are damaged, and one of them is needed.
    """
    for path in list_named(run):
        if not (path / MARKER).is_file():
            say(f"{path} has no {MARKER}: it was never completed, or is damaged, and is not used")
    damaged: dict[str, str] = {}
    found = sorted(list_complete(run), key=lambda path: (_may_be_current(path), step_in(path)), reverse=True)
    for path in found:
        if not (wrong := faults(path)):
            later = [each for each in found if step_in(each) > step_in(path) and each.name not in damaged]
            for name, line in {**damaged, **{each.name: _why_not(each) for each in later}}.items():
                say(f"{line}: {name} is not used, but {path.name}")
            return path
        damaged[path.name] = _damage(path, wrong)
    if damaged and is_needed:
        raise ModelError(
            f"{'; '.join(damaged.values())}: no checkpoint of this run is left; start it anew, without "
            f"--resume-from-checkpoint, with --output-dir {in_command(run)} --overwrite-output-dir"
        )
    for line in damaged.values():
        say(line)
    return None


def is_current(checkpoint: Path) -> bool:
    """Whether the history of the run continues that of a checkpoint; that of one of an earlier clm is not known."""
    kept, whole = (folder / HISTORY_FILE for folder in (checkpoint, run_of(checkpoint)))
    if not kept.is_file():
        return True
    return whole.is_file() and not whole.is_symlink() and whole.read_bytes().startswith(kept.read_bytes())


def check_whole(checkpoint: Path) -> None:
    """Make sure that a checkpoint is as it was written.

    Raises:
        ModelError: a file of it is damaged, missing, or from another checkpoint.
    """
    if wrong := faults(checkpoint):
        raise ModelError(f"{_damage(checkpoint, wrong)}: use another checkpoint")


def run_of(checkpoint: Path) -> Path:
    """The folder of the run that a checkpoint lies in, also where it is a link to elsewhere, or named `.`."""
    named = checkpoint.name not in ("", "..")
    return checkpoint.parent if named else Path(os.path.abspath(checkpoint)).parent  # noqa: PTH100  (not through links)


def _may_be_current(checkpoint: Path) -> bool:
    """Whether a checkpoint is current, or would be if the end of the run's history had not been cut off."""
    kept, whole = (folder / HISTORY_FILE for folder in (checkpoint, run_of(checkpoint)))
    if is_current(checkpoint) or not whole.is_file() or whole.is_symlink():
        return is_current(checkpoint)
    lines = whole.read_bytes()
    return kept.read_bytes().startswith(lines[: lines.rfind(b"\n") + 1])


def _why_not(checkpoint: Path) -> str:
    """Why a checkpoint is passed over that the run's history does not lead to."""
    if wrong := faults(checkpoint):
        return _damage(checkpoint, wrong)
    return f"{checkpoint} is none that {run_of(checkpoint) / HISTORY_FILE} leads to"


def _damage(checkpoint: Path, wrong: list[str]) -> str:
    return f"{checkpoint} is damaged: {', '.join(wrong)}"
