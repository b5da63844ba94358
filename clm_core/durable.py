"""Durable files, whole or not at all: write, sync the file, sync the folder."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from stat import S_IMODE

from clm_core.errors import OutputError


def write(path: Path, text: str) -> None:
    """Write a file completely or not at all; a link, a pipe or a device is written to, not replaced.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            path.write_text(text, encoding="utf-8")
        else:
            replace(path, text)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def replace(path: Path, text: str) -> None:
    """Write a file in one step, replacing an existing one.

    Raises:
        OSError: it cannot be written; what was there still is.
    """
    temporary = path.with_name(f".{path.name}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync(folder: Path) -> None:
    """Wait until the files of a folder, and their names, are on the disk."""
    for path in folder.iterdir():
        if path.is_file() and not path.is_symlink():
            sync_file(path)
    sync_folder(folder)


def sync_file(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, on systems where a folder can be synced."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def share(folder: Path) -> None:
    """Give the files of a folder the permissions that the user's umask gives a new file.

    Some libraries write for the owner alone, safetensors among them.
    """
    mode = _mode_of_a_new_file(folder)
    for path in folder.iterdir():
        if path.is_file() and not path.is_symlink() and S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)


def _mode_of_a_new_file(folder: Path) -> int:
    """Read off a file: the umask itself cannot be read without setting it, which other threads would notice."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        file = Path(temporary) / "new"
        file.touch()
        return S_IMODE(file.stat().st_mode)
