"""Writes files whole or not at all: write, sync the file, sync the folder; and not through a link."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_IMODE
from typing import BinaryIO

from clm_core.errors import OutputError

TEMPORARY = ".clm-new-"
"""Prefix of the name of a file that is being written; what follows cannot be foreseen."""

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
"""Opens a file that does not exist yet, not even as a link."""


def write(path: Path, text: str) -> None:
    """Write a file that a person named, whole or not at all; a link, a pipe or a device is written to, not replaced.

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


def replace(path: Path, content: str | bytes) -> None:
    """Write a file in one step, in place of an existing one, or of a link of its name.

    Raises:
        OSError: it cannot be written; what was there still is.
    """
    with _replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def copy(source: Path, path: Path) -> None:
    """Copy a file in one step, in place of an existing one, or of a link of its name.

    Raises:
        OSError: it cannot be copied; what was there still is.
    """
    from shutil import copyfileobj

    with source.open("rb") as whole, _replacing(path) as file:
        copyfileobj(whole, file)


def read(path: Path) -> str:
    """The text of a file.

    Raises:
        OSError: it is missing, is no file, or cannot be read.
        ValueError: it is not UTF-8.
    """
    if path.exists() and not path.is_file():  # To read a pipe would wait for its writer.
        raise OSError("it is not a file")
    return path.read_text(encoding="utf-8")


def append(path: Path, line: str) -> None:
    """Add a line to a file, which is no link.

    Raises:
        OSError: it cannot be written, or is a link.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o666)
    with os.fdopen(descriptor, "a", encoding="utf-8") as file:
        file.write(line + "\n")


@contextmanager
def temporary_folder(folder: Path, prefix: str) -> Iterator[Path]:
    """A new folder within a folder, for its owner alone, which is removed at the end, or left if the disk refuses."""
    import tempfile

    # TemporaryDirectory tries without end, up to Python 3.11, where a permission was taken away.
    made = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
    try:
        yield made
    finally:
        discard(made)


def discard(folder: Path) -> None:
    """Remove a temporary folder, or leave it if the disk refuses; a signal that raises meanwhile does so afterwards."""
    import shutil

    try:
        for _ in range(2):  # What fails once need not fail again.
            shutil.rmtree(folder, ignore_errors=True)
    except BaseException:  # A second signal raises nothing: it ends the process.
        shutil.rmtree(folder, ignore_errors=True)
        raise


def unforeseen(folder: Path, prefix: str) -> Path:
    """A path in a folder that nobody can have put a link at: what follows the prefix cannot be foreseen."""
    return folder / f"{prefix}{os.urandom(8).hex()}"


def remove(path: Path) -> None:
    """Remove a file, a folder with all in it, or a link, but not what it points to; nothing if there is none.

    Raises:
        OSError: it cannot be removed, and is named.
    """
    if path.is_dir() and not path.is_symlink():
        from shutil import rmtree  # This module is loaded to print help.

        try:
            rmtree(path)
        except OSError as error:  # It names a file without the folder that it is in.
            raise OSError(error.errno, error.strerror, str(path)) from error
    else:
        path.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Wait until the files of a folder and of those in it, and their names, are on the disk."""
    for path in files_in(folder):
        sync_file(path)
    sync_names(folder)


def sync_names(folder: Path) -> None:
    """Wait until the names in a folder and in those in it are on the disk."""
    for inner, _, _ in os.walk(folder, topdown=False):
        sync_folder(Path(inner))


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
    """Give the files of a folder and of those in it the permissions that the user's umask gives a new file.

    Some libraries write for the owner alone, safetensors among them.
    """
    mode = _mode_of_a_new_file(folder)
    for path in files_in(folder):
        if S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)


def files_in(folder: Path) -> Iterator[Path]:
    """The files of a folder and of the folders in it, but no links and nothing behind a link."""
    for inner, _, names in os.walk(folder):
        paths = (Path(inner) / name for name in names)
        yield from (path for path in paths if path.is_file() and not path.is_symlink())


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file beside `path`, which takes its place, on the disk, when the block ends well."""
    temporary = unforeseen(path.parent, TEMPORARY)
    try:
        with os.fdopen(os.open(temporary, NEW, 0o666), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _mode_of_a_new_file(folder: Path) -> int:
    """Read off a file: the umask itself cannot be read without setting it, which other threads would notice."""
    file = unforeseen(folder, TEMPORARY)
    os.close(os.open(file, NEW, 0o666))
    mode = S_IMODE(file.stat().st_mode)
    file.unlink()
    return mode
