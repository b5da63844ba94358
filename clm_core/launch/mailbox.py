"""What the processes of a command tell the one that started them: who they are, the result, and what failed first."""

import json
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from clm_core.errors import ClmError
from clm_core.screen.exit_codes import code_of

VARIABLE = "CLM_LAUNCH"
"""The environment variable with the folder, in the processes that clm started."""

PROCESS, ERROR, RESULT, STOPPED = "process-", "error.json", "result.json", "stopped.json"
"""What the processes leave: their numbers, what failed first, the result, and that one has stopped as asked."""

FAILED = "clm-{}-{}-failed"
"""Where processes that somebody else started leave that one has failed, by the user and the launcher."""

PREPARED, SAID, SILENT = "prepared", "said", "silent"
"""What they are given: where the data is, whether the plan was told to the person, and whether nothing is to be."""


def folder() -> Path | None:
    """The folder of the process that started this one; None if clm did not start it."""
    return Path(found) if (found := os.environ.get(VARIABLE)) else None


def put(name: str, content: str, place: Path | None = None) -> None:
    """Leave something in a folder, or for the process that started this one, if it is clm, and there still is one."""
    if (place := place or folder()) is None:
        return
    with suppress(FileNotFoundError):  # The folder is gone with the process that would have looked into it.
        new = place / f".{name}-{os.getpid()}"
        new.write_text(content, encoding="utf-8")
        new.replace(place / name)


def take(name: str, place: Path | None = None) -> str | None:
    """What was left under a name, if anything."""
    place = place or folder()
    with suppress(FileNotFoundError):
        return None if place is None else (place / name).read_text(encoding="utf-8")
    return None


def first_process(place: Path) -> int | None:
    """The number of a process here, of those that there are the one of the lowest rank."""
    ranks = sorted(int(path.name.removeprefix(PROCESS)) for path in place.glob(f"{PROCESS}*"))
    numbers = (int((place / f"{PROCESS}{rank}").read_text(encoding="utf-8")) for rank in ranks)
    return next(filter(_is_there, numbers), None)


def first_to_fail(error: dict[str, Any]) -> bool:
    """Whether no other process of this start has failed before; keeps the error for the process that started them.

    What fails because another process has ended comes after what ended that one.
    """
    place, file = folder(), _file_of_failure()
    if not has_one_failed():
        with suppress(OSError):
            file.unlink()  # It is of processes from before, which a launcher has started again, or long ago.
    _remove_old(file.parent)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    except OSError:  # No temporary folder: better said by all than by none.
        return True
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(error if place else {}, stream)
    return True


def has_one_failed() -> bool:
    """Whether a process of this start has failed, on this machine."""
    with suppress(OSError):
        return _file_of_failure().stat(follow_symlinks=False).st_mtime >= (_started(os.getpid()) or time.time())
    return False


def launched() -> float | None:
    """When the launcher of this process was started, in seconds since the epoch; None where the system does not tell.

    It may have started the process more than once.
    """
    return _started(os.getppid())


def leave(error: ClmError) -> int:
    """Leave an error that ended the processes, unless one of them has failed before; returns its exit code."""
    code = code_of(error)
    first_to_fail({"code": code, "line": str(error)})
    return code


def _file_of_failure() -> Path:
    """Where the processes of a machine keep which of them has failed first."""
    # All processes that somebody else's launcher starts on a machine have one parent.
    place = folder()
    return place / ERROR if place else Path(tempfile.gettempdir()) / FAILED.format(os.getuid(), os.getppid())


def _remove_old(folder: Path) -> None:
    """Remove what processes left whose launcher is gone: nobody else would."""
    for path in folder.glob(FAILED.format(os.getuid(), "*")):
        launcher = path.name.split("-")[2]
        with suppress(OSError):
            if launcher.isdecimal() and not _is_there(int(launcher)):
                path.unlink()


def _is_there(process: int) -> bool:
    """Whether it has not ended, as one that a launcher is about to start again."""
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


def _started(process: int) -> float | None:
    """When a process was started, in seconds since the epoch; None where the system does not tell."""
    with suppress(OSError, AttributeError):
        ticks = int(Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[19])
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
    return None
