"""Sizes and SHA-256 of the files of a folder, and a seal for the record that has them: damage is found and named."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

Listed = dict[str, dict[str, Any]]
"""For each file, by its name: `size` in bytes, and `sha256`."""

SEAL = "sha256"
"""The key of a record's own digest."""

SIDE_BY_SIDE = 4
"""Files that are hashed or synced at once: both leave Python to other threads, and a disk takes several requests."""


def list_files(
    folder: Path, names: Iterable[str] | None = None, *, each: Callable[[Path], None] | None = None
) -> Listed:
    """The sums of the files of these names in a folder, or of all of them but links, hidden files and folders.

    `each` is called with every file while others are hashed, such as to sync it.
    """
    from concurrent.futures import ThreadPoolExecutor  # This module is loaded to print help.

    chosen = sorted(_shown(folder) if names is None else names)

    def listed(name: str) -> dict[str, Any]:
        if each:
            each(folder / name)
        return {"size": (folder / name).stat().st_size, SEAL: _digest(folder / name)}

    with ThreadPoolExecutor(min(SIDE_BY_SIDE, max(1, len(chosen)))) as threads:
        return dict(zip(chosen, threads.map(listed, chosen), strict=True))


def faults(folder: Path, listed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is wrong with the files that a record lists, a line for each; nothing if all are as they were written.

    The sizes are compared first, so that what is cut off is found without reading the rest.
    """
    sizes = {name: _fault_of_size(folder, name, entry) for name, entry in listed.items()}
    if found := [fault for fault in sizes.values() if fault]:
        return found
    now = list_files(folder, listed)
    return [f"{name} has changed since it was written" for name, entry in listed.items() if now[name] != dict(entry)]


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with its own digest, by which `is_sealed` knows it again."""
    return {**record, SEAL: _digest_of(record)}


def is_sealed(record: Mapping[str, Any]) -> bool:
    """Whether a record is as `seal` returned it; one without a digest is not."""
    return record.get(SEAL) == _digest_of({key: value for key, value in record.items() if key != SEAL})


def _shown(folder: Path) -> list[str]:
    files = [path for path in folder.iterdir() if path.is_file() and not path.is_symlink()]
    return [path.name for path in files if not path.name.startswith(".")]


def _fault_of_size(folder: Path, name: str, entry: Mapping[str, Any]) -> str | None:
    path = folder / name
    if os.sep in name or path.is_symlink():
        return f"{name} is a link or a path, not a file of the folder"
    if not path.is_file():
        return f"{name} is missing"
    size = path.stat().st_size
    return None if size == entry["size"] else f"{name} has {size:,} bytes instead of {entry['size']:,}"


def _digest(file: Path) -> str:
    import hashlib

    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _digest_of(record: Mapping[str, Any]) -> str:
    import hashlib

    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
