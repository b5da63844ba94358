"""A lock for a folder that one process writes: a second one learns who holds it, and a dead process holds none."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_core.durable.files import remove

try:
    import fcntl
except ImportError:  # Windows, where runs are not locked.
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
"""The file in the folder that is locked: there for as long as a process holds the lock, or until the next one does."""


class HeldError(Exception):
    """Another process holds the lock."""

    def __init__(self, holder: "Holder | None") -> None:
        super().__init__(str(holder or "another process"))


class BlockedError(Exception):
    """What lies in the place of the lock is no file that this process can lock."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock."""

    host: str
    pid: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which exists; the system releases it if the process dies, whatever kills it.

    Raises:
        HeldError: another process holds it.
        BlockedError: its file is a folder, a link or the like, or one that this process may not write.
        OSError: the lock cannot be written.
    """
    if fcntl is None:
        yield
        return
    descriptor = _taken(folder / LOCK)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
        yield
    finally:
        with suppress(OSError):  # The folder may be gone, or not be writable any more.
            (folder / LOCK).unlink()
        os.close(descriptor)


def remove_abandoned(folder: Path, prefix: str) -> None:
    """Remove the folders of this prefix in a folder that a killed process had locked; live and strange ones stay."""
    if fcntl is None:
        return
    for path in folder.glob(f"{prefix}*"):
        with suppress(OSError, HeldError, BlockedError):  # What cannot be removed now may be by the next one.
            # One without a holder is just being made.
            if not path.is_symlink() and (path / LOCK).stat().st_size:
                with locked(path):
                    remove(path)


def _taken(file: Path) -> int:
    """A descriptor of the lock file, which is locked, and which nobody has removed in the meantime."""
    while True:
        if os.path.lexists(file) and (why := _why_not(file)):
            raise BlockedError(f"{file} {why}")
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(os.read(descriptor, 1000))
            os.close(descriptor)
            raise HeldError(holder) from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), file.stat(follow_symlinks=False)):
                return descriptor
        os.close(descriptor)  # The process that held it has removed it since it was opened here.


def _why_not(file: Path) -> str | None:
    """Why something that there is cannot be locked, if it cannot."""
    if file.is_symlink():
        return "is a link"
    if file.is_dir():
        return "is a folder"
    if file.exists() and not file.is_file():
        return "is no file of text or data"
    if file.exists() and file.stat().st_nlink > 1:
        return "is a hard link"
    return None if not file.exists() or os.access(file, os.R_OK | os.W_OK) else "may not be written by you"


def _holder(content: bytes) -> Holder | None:
    with suppress(ValueError, KeyError, TypeError):
        record: dict[str, Any] = json.loads(content)
        return Holder(str(record["host"]), int(record["pid"]))
    return None
