"""Sizes and SHA-256 of the files of a folder, and a seal for the record that has them: damage is found and named."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from clm_core.counts import with_noun
from clm_core.durable.files import files_in, read

Listed = dict[str, dict[str, Any]]
"""For each file, by its name, or its path with slashes if it is in a folder of the folder: `size`, and `sha256`."""

SEAL = "sha256"
"""The key of a record's own digest."""


def list_files(
    folder: Path, names: Iterable[str] | None = None, *, each: Callable[[Path], None] | None = None
) -> Listed:
    """The sums of the files of these names in a folder, or of all in it and in its folders but links and hidden ones.

    `each` is called with every file while it is hashed, such as to sync it. One that was hashed while it was written
    is not read.

    Raises:
        OSError: one cannot be read.
    """
    from concurrent.futures import ThreadPoolExecutor  # This module is loaded to print help.

    from clm_core.durable.hashing import AT_ONCE

    chosen = sorted(_shown(folder) if names is None else names)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        called = [threads.submit(each, folder / name) for name in chosen] if each else []
        listed = threads.map(_listed, [folder / name for name in chosen])
        for call in called:
            call.result()
        return dict(zip(chosen, listed, strict=True))


def of_bytes(content: bytes) -> dict[str, Any]:
    """The sums of a file with this content."""
    import hashlib

    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def faults(folder: Path, listed: Any, *, links: bool = False) -> list[str]:
    """What is wrong with the files that a record lists, a line for each; nothing if all are as they were written.

    `listed` is what `list_files` returned, or whatever a record has in its place. A link instead of a file is a fault,
    unless `links` are as good as files. Only what has its size is read.
    """
    from concurrent.futures import ThreadPoolExecutor

    from clm_core.durable.hashing import AT_ONCE

    if not isinstance(listed, Mapping):
        return ["no file is listed with its size and SHA-256"]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        found = threads.map(lambda name: _fault(folder, name, listed[name], links=links), listed)
        return [fault for fault in found if fault]


def read_record(file: Path) -> dict[str, Any]:
    """The names and values in a JSON file.

    Raises:
        OSError: it is missing, is no file, or cannot be read.
        ValueError: it has something else in it.
    """
    try:
        found = json.loads(read(file))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with its own digest, by which `is_sealed` knows it again; an earlier digest is replaced."""
    return {**record, SEAL: _digest_of(record)}


def is_sealed(record: Mapping[str, Any]) -> bool:
    """Whether a record is as `seal` returned it; one without a digest is not."""
    return bool(record.get(SEAL) == _digest_of(record))


def _shown(folder: Path) -> list[str]:
    paths = [path.relative_to(folder) for path in files_in(folder)]
    return [path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts)]


def _listed(file: Path) -> dict[str, Any]:
    from clm_core.durable import hashing

    return {"size": file.stat().st_size, "sha256": hashing.taken(file) or hashing.sha256(file)}


def _fault(folder: Path, name: str, entry: Any, *, links: bool) -> str | None:
    path, parts = folder / name, PurePath(name).parts
    try:
        if not parts or PurePath(name).is_absolute() or ".." in parts:
            return f"{name} is not in the folder"
        if not links and any((folder / Path(*parts[:end])).is_symlink() for end in range(1, len(parts) + 1)):
            return f"{name} is a link, not the file that was written"
        if not path.is_file():
            return f"{name} is {'not a file' if path.exists() else 'missing'}"
        how = _difference(path, dict(entry))
        return None if how is None else f"{name} does not match its checksum{how}"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror or error}"
    except (TypeError, ValueError, KeyError):
        return f"{name} is listed without its size and SHA-256"


def _difference(path: Path, entry: dict[str, Any]) -> str | None:
    """How a file differs from what was listed, if it does; its size says at once that something was cut off."""
    from clm_core.durable.hashing import sha256

    size, expected = path.stat().st_size, int(entry["size"])
    if size != expected:
        return f" ({with_noun(size, 'byte')} instead of {expected:,})"
    return None if sha256(path) == entry["sha256"] else ""


def _digest_of(record: Mapping[str, Any]) -> str:
    import hashlib

    unsealed = {key: value for key, value in record.items() if key != SEAL}
    return hashlib.sha256(json.dumps(unsealed, sort_keys=True).encode()).hexdigest()
