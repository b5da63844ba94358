"""The folder of the cache, and the locks in it: a process waits for another that does the same."""

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Only preparing needs it.
    from filelock import FileLock


def cache_folder() -> Path:
    """The folder of the cache: CLM_CACHE, or `clm` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clm"
    return Path(os.environ.get("CLM_CACHE") or default)


def lock(target: Path, timeout: float = -1) -> "FileLock":
    """The lock of a file or a folder, taken on entry; waits at most `timeout` seconds, or without limit.

    The system releases it when a process dies.

    Raises:
        OSError: the folder of the locks cannot be written; also raised on entry.
    """
    from filelock import FileLock

    name = hashlib.sha256(str(target.absolute()).encode()).hexdigest()[:32]
    locks = cache_folder() / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / f"{name}.lock", timeout=timeout)
