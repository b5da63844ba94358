"""Opens files as bytes: local or behind a URL, plain or compressed."""

import bz2
import gzip
import lzma
import os
import shutil
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from clm_core.data.readers.remote import RemoteFile
from clm_core.errors import DataError

File = Path | RemoteFile


def _zstd(raw: Any) -> Any:
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode="r"), "zstd")


UNPACKERS: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _zstd}
"""How to open a file, by the end of its name."""


def packing(file: File) -> str:
    """The ending that says how a file is compressed, or an empty string."""
    suffix = Path(file.name).suffix.lower()
    return suffix if suffix in UNPACKERS else ""


def kind(file: File) -> str:
    """The ending that says what a file is, compressed or not."""
    return Path(file.name[: len(file.name) - len(packing(file))]).suffix.lower()


@contextmanager
def opened(file: File) -> Iterator[BinaryIO]:
    """The decompressed bytes of a file, from the first to the last.

    Raises:
        DataError: it cannot be read, or its compressed data is damaged; also raised by reading within the block.
    """
    with _explained(file), file.open("rb") as raw:
        if how := packing(file):
            with UNPACKERS[how](raw) as unpacked:
                yield cast(BinaryIO, unpacked)
        else:
            yield raw


@contextmanager
def opened_anywhere(file: File) -> Iterator[BinaryIO]:
    """The same, with random access: through a temporary copy, if there is no other way.

    Raises:
        DataError: it cannot be read, or its compressed data is damaged.
    """
    if not packing(file):
        with _explained(file), file.open("rb") if isinstance(file, Path) else file.open(seek=True) as raw:
            if raw.seekable():
                yield raw
                return
    with opened(file) as stream, tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        copy.seek(0)
        yield cast(BinaryIO, copy)


def check_regular(file: Path, option: str) -> None:
    """Make sure that a file can be read more than once, and ends.

    Raises:
        DataError: it is a pipe or a device.
    """
    mode = os.stat(file).st_mode  # noqa: PTH116
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return
    what = "pipe" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"
    raise DataError(
        f"{option}: {file} is a {what}, not a file: the data is read more than once, so write it to a file first"
    )


@contextmanager
def _explained(file: File) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise _damaged(file, error) from None
    except OSError as error:
        if error.errno is None and packing(
            file
        ):  # An error of the system has a number, one of a decompressor does not.
            raise _damaged(file, error) from None
        raise DataError(f"cannot read {file}: {error.strerror or error}") from None


def _damaged(file: File, error: Exception) -> DataError:
    return DataError(f"{file}: the {packing(file)} data is truncated or damaged: {error}")
