"""Stamps in the cache: what was found out about files by reading all of them is known until one of them changes."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from clm_core import durable
from clm_core.durable.checksums import is_sealed, read_record, seal
from clm_core.durable.locks import cache_folder, lock

SETTLED = 2_000_000_000
"""Nanoseconds after which the next change of a file gives it another time, also where times are whole seconds."""

States = dict[str, list[int]]
"""Of each file, by its path: size, times of change in nanoseconds, inode and device."""


def once(what: str, files: Sequence[Path], find_out: Callable[[], str]) -> str:
    """What `find_out` returns after reading `files`; it is called again only when one of them has changed.

    Of processes that start at once, one reads and the others wait for it. A cache that cannot be written keeps nothing.
    Neither is anything kept of an error, or of files that have just changed: their next change might not show.
    """
    stamp = _Stamp(what, tuple(os.path.abspath(file) for file in files))  # noqa: PTH100  (links stay what they are)
    if (known := stamp.read()) is not None:
        return known
    with _alone(stamp.path):
        if (known := stamp.read()) is not None:
            return known
        before, now = stamp.states(), time.time_ns()
        found = find_out()
        is_settled = max((max(times) for _, *times, _, _ in before.values()), default=0) < now - SETTLED
        if before and is_settled and stamp.states() == before:
            stamp.write(before, found)
        return found


@dataclass(frozen=True)
class _Stamp:
    what: str
    files: tuple[str, ...]

    @property
    def path(self) -> Path:
        content = json.dumps([self.what, self.files])
        return cache_folder() / ".stamps" / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.json"

    def read(self) -> str | None:
        """What is known of the files as they are now."""
        try:
            record = read_record(self.path)
        except (OSError, ValueError):
            return None
        is_valid = is_sealed(record) and record.get("files") == self.states()
        return str(record["found"]) if is_valid else None

    def write(self, states: States, found: str) -> None:
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            durable.replace(self.path, json.dumps(seal({"what": self.what, "files": states, "found": found})))

    def states(self) -> States:
        """How the files are now; of none, if one is not there."""
        try:
            return {file: _state(os.stat(file)) for file in self.files}  # noqa: PTH116
        except OSError:
            return {}


def _state(found: os.stat_result) -> list[int]:
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While no other process is, where the cache can be written."""
    held = None
    with suppress(OSError, NotImplementedError):  # The latter where the file system has no locks.
        held = lock(path)
        held.acquire()
    try:
        yield
    finally:
        if held is not None:
            held.release()
