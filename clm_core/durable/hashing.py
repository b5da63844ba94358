"""SHA-256 of files, taken while they are written and synced: one after the other, these would add up."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from clm_core.durable.files import files_in, sync_file

Bytes = bytes | memoryview

AT_ONCE = 4
"""Files that are hashed or synced at once: both leave Python to other threads, and a disk takes several requests."""

SYNC_EVERY = 64 * 2**20
"""Bytes of a file after which it is synced while the next are written, so that the last sync has little left to do."""

_taken: dict[Path, tuple[list[int], str]] = {}
"""Of files that were hashed ahead: how each was then, and its SHA-256."""


def sha256(file: Path) -> str:
    """The SHA-256 of a file, which is read.

    Raises:
        OSError: it cannot be read.
    """
    # Read, not mapped: a disk that fails is an error then, and not the end of the process by SIGBUS.
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def taken(file: Path) -> str | None:
    """The SHA-256 that was taken of a file while it was written, if it is as it was then; it is said once."""
    state, digest = _taken.pop(file, ([], ""))
    return digest if state == _state(file) else None


@contextmanager
def hashed_while_written(file: Path) -> Iterator["HashedFile"]:
    """Write a file, hash it and sync it, all at the same time.

    Raises:
        OSError: it cannot be written.
    """
    with file.open("wb") as out, ThreadPoolExecutor(2) as threads:
        hashed = HashedFile(out, threads)
        yield hashed
        digest = hashed.end()
    _taken[file] = (_state(file), digest)


@contextmanager
def hashed_beside(folder: Path) -> Iterator[None]:
    """Hash and sync the files that are in a folder, which do not change any more, while the block writes another.

    Raises:
        OSError: one cannot be read or synced. The system says only once that a disk failed: it is said here, or lost.
    """

    def take(file: Path) -> None:
        state = _state(file)
        _taken[file] = (state, sha256(file))

    with ThreadPoolExecutor(AT_ONCE) as threads:
        begun = [threads.submit(do, file) for file in files_in(folder) for do in (sync_file, take)]
        yield
        for each in begun:
            each.result()


class HashedFile:
    """A file that is being written: each part is hashed, and parts before it are synced, while the next is made."""

    def __init__(self, out: BinaryIO, threads: ThreadPoolExecutor) -> None:
        self._out, self._threads = out, threads
        self._digest = hashlib.sha256()
        self._hashing: Future[Any] = threads.submit(self._digest.update, b"")
        self._syncing: Future[Any] = self._hashing
        self._unsynced = 0

    def write(self, part: Bytes) -> None:
        """Write the next bytes, which must not change before the file is closed."""
        self._hashing.result()  # So that no more than two parts are in memory.
        self._hashing = self._threads.submit(self._digest.update, part)
        self._out.write(part)
        self._unsynced += len(part)
        if self._unsynced >= SYNC_EVERY and self._syncing.done():
            self._unsynced = 0
            self._syncing.result()
            self._syncing = self._threads.submit(os.fsync, self._out.fileno())

    def end(self) -> str:
        """Wait until the file is on the disk; its SHA-256."""
        self._syncing.result()  # The system says only once that a disk failed.
        self._out.flush()
        os.fsync(self._out.fileno())
        self._hashing.result()
        return self._digest.hexdigest()


def _state(file: Path) -> list[int]:
    """What is another once a file is written again, or another is in its place."""
    found = file.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev]
