"""What a process that was killed leaves in a run's folder: put back, or removed, by the next one.

The run that is replaced waits in a hidden folder of the run's own. The name of that folder says what to do with it,
and changes in one step, so that a kill at any moment leaves either the earlier run or the new one:

    .replacing-XXXX    the earlier run is being moved here, or back; nothing of it is anywhere else
    .replaced-XXXX     all of it is here, and what is beside it is of the new run, which has made no step yet
    .discarded-XXXX    the new run has made a step: this is being deleted
"""

from collections.abc import Iterator
from pathlib import Path

from clm_core.checkpoints import NAME
from clm_core.checkpoints import TEMPORARY as CHECKPOINT
from clm_core.durable import remove, sync_folder
from clm_core.durable.files import TEMPORARY as FILE
from clm_core.durable.files import unforeseen
from clm_core.record import LOGS, REPLACED, REPLACING, UPLOADING, WRITTEN, is_weights

MODEL = ".model-"
"""Prefix of the name of a folder in which the trained model is written."""

DISCARDED = ".discarded-"

EVENTS = "events.out.tfevents"
"""How the names of the files of curves begin, which TensorBoard's writer chooses."""

TEMPORARY = (MODEL, CHECKPOINT, UPLOADING, FILE)

OF_EARLIER = {f".{name}" for name in WRITTEN}
"""Files that an earlier clm was writing."""


def are_in(folder: Path) -> bool:
    """Whether there is something that a killed process left."""
    return any(_named(folder, *TEMPORARY, REPLACING, REPLACED, DISCARDED, *OF_EARLIER))


def put_right(folder: Path) -> None:
    """Make a folder that nobody else writes what it was before the step in which a process was killed."""
    for path in _named(folder, *TEMPORARY, REPLACING, REPLACED, DISCARDED, *OF_EARLIER):
        # A folder of ours that is a link is a stranger's: nothing is moved out of where it leads to.
        if path.is_symlink() or not path.name.startswith((REPLACING, REPLACED)):
            remove(path)
    for earlier in _named(folder, REPLACED):
        _restore(folder, earlier)
    for earlier in _named(folder, REPLACING):
        _move_back(folder, earlier)


def set_aside(folder: Path) -> None:
    """Move the run in a folder, if there is one, to where it waits until the new one has made a step."""
    if not (paths := [path for path in folder.iterdir() if _is_of_run(path)]):
        return
    moving = unforeseen(folder, REPLACING)
    moving.mkdir()
    try:
        for path in paths:
            path.rename(moving / path.name)
    except OSError:  # There are folders that only their owner may move.
        _move_back(folder, moving)
        raise
    _rename(moving, REPLACED)


def take_back(folder: Path) -> None:
    """Remove what a run wrote that has made no step, and put the one back that it was to replace."""
    earlier = list(_named(folder, REPLACED))
    if not earlier:
        _remove_run(folder)
    for path in earlier:
        _restore(folder, path)


def discard_earlier(folder: Path) -> None:
    """Delete the run that waits, because the new one has made a step."""
    for earlier in _named(folder, REPLACED):
        remove(_rename(earlier, DISCARDED))


def _restore(folder: Path, earlier: Path) -> None:
    _remove_run(folder)
    _move_back(folder, _rename(earlier, REPLACING))


def _move_back(folder: Path, earlier: Path) -> None:
    for path in earlier.iterdir():
        path.rename(folder / path.name)
    earlier.rmdir()
    sync_folder(folder)


def _rename(folder: Path, prefix: str) -> Path:
    """Give a folder that waits the name that says what is to become of it."""
    renamed = folder.rename(folder.with_name(f"{prefix}{folder.name.rpartition('-')[2]}"))
    sync_folder(folder.parent)
    return renamed


def _remove_run(folder: Path) -> None:
    for path in folder.iterdir():
        if _is_of_run(path):
            remove(path)


def _is_of_run(path: Path) -> bool:
    """Whether a run writes files and folders of this name."""
    if path.is_dir() and path.name == LOGS:
        return path.is_symlink() or all(file.name.startswith(EVENTS) for file in path.iterdir())
    if path.is_dir():
        return bool(NAME.fullmatch(path.name)) or path.name.startswith(TEMPORARY)
    return path.name in WRITTEN or path.name.startswith(FILE) or is_weights(path.name)


def _named(folder: Path, *prefixes: str) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.name.startswith(prefixes))
