"""Errors of a disk that does not take a write: full, over quota, not permitted, failing, gone; also hidden ones."""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clm_core.errors import ClmError, DiskError, DiskFullError, OutputError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""The system's errors for a full disk and for an exceeded quota."""

REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
"""Those for a lack of permission, and for a disk that can only be read."""

FAILED = ("EIO", "EFBIG", "ENXIO", "ENODEV", "ESTALE", "ENOTCONN", "EREMOTEIO")
"""Those for a disk that fails or is not there any more, and for a file larger than it may be; by name, as not every
system has all."""

GONE = (errno.ENOENT, errno.ENOTDIR)
"""Errors of a disk only where the folder itself is gone, or the one that it is written in."""

IN_THE_WAY = (errno.EISDIR,)
"""That for a folder in the place of the file: said as one of the disk, though only what is there refuses."""

OF_DISK = (*FULL, *REFUSED, *(getattr(errno, name) for name in FAILED if hasattr(errno, name)))

WORDS = {os.strerror(number).lower(): number for number in OF_DISK}
"""What the system says of each, which libraries repeat in errors of their own."""

NUMBER = re.compile(r"(?:os error |os \{ code: |errno[ =]*)(\d+)")
"""How Rust, HDF5 and Python write the number of an error of the system."""

ARCHIVES = ("pytorchstreamwriter", "unexpected pos")
"""What PyTorch says that cannot write an archive, and does not say why: nearly always, the disk is full."""

UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def is_disk_error(error: BaseException) -> bool:
    """Whether a disk did not take what was written; some libraries raise another error for it, and some hide it."""
    return _number(error, OF_DISK) is not None


def said_of_full_disk(path: Path | str) -> str:
    """What is said where a disk has no room for a file: which one, and the way out."""
    short, way = ("takes no more files", "remove some") if _has_no_inode(Path(path)) else ("is full", "free some space")
    return f"the disk {short}: {path}: {way}, or choose a folder on another disk"


def is_disk_full(error: BaseException) -> bool:
    """Whether the reason was that there was no space left, or a quota was used up."""
    return _number(error, FULL) is not None


@contextmanager
def writing(
    path: Path,
    *,
    within: Path | None = None,
    needs: Callable[[], int] = lambda: 0,
    temporary: Path | None = None,
    verb: str = "written",
) -> Iterator[None]:
    """Explain an error of the disk while the file or folder at `path` is written, or something else `within` a folder.

    That is the folder of `path`, if none is given. `needs` returns the bytes that it is to have, or 0 if that is not
    known. `temporary` is a folder that it is written in, and that is removed after an error. `verb` is what is done to
    `path`, if that is something else.

    Raises:
        DiskError: the disk did not take it; the message has the path, what was needed and what is free.
    """
    try:
        yield
    except DiskError:
        raise
    except Exception as error:
        within = within or path.parent
        gone = next((each for each in (within, temporary) if each and not each.is_dir()), None)
        number = _number(error, (*OF_DISK, *IN_THE_WAY, *(() if gone is None else GONE)))
        if number is None or not _is_about(error, number, within):
            raise
        if gone is not None and number in GONE:
            raise DiskError(f"{gone} cannot be {verb}: it was removed, or its disk is not there any more") from error
        if number in IN_THE_WAY:
            raise DiskError(f"{_target_of(error) or path} is a folder in the place of a file: remove it") from error
        if _is_elsewhere(error, within):  # Such as in the folder for temporary files, where nothing more is known.
            raise _explained(number, file_of(error) or path) from error
        if refused := _refused(error, number, within, temporary):
            verb = verb if os.access(refused, os.R_OK) else "read"
            raise _explained(number, refused, verb=verb) from error
        raise _explained(number, path, needs(), size_of(temporary) if temporary else 0, verb=verb) from error


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files in a folder; 0 if there are none that can be seen."""
    with suppress(OSError):
        if path.is_dir():
            return sum(size_of(each) for each in path.iterdir() if not each.is_symlink())
        return path.stat().st_size
    return 0


def free_at(path: Path) -> int:
    """The bytes that are free for this user on the disk of a path, which need not exist.

    Raises:
        OSError: the system does not say.
    """
    return shutil.disk_usage(_existing(path)).free


def shown(size: float) -> str:
    """A number of bytes as a person reads it, in three digits and units of 1000, such as "1.25 GB"."""
    unit = 0
    while size >= 999.5 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {UNITS[unit]}"


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that led to it, hidden ones too."""
    seen: set[int] = set()  # Python lets an error be its own cause.
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def file_of(error: BaseException) -> Path | None:
    """The file that an error names, or one that led to it."""
    named = (link.filename for link in chain(error) if isinstance(link, OSError))
    return next((Path(name) for name in named if isinstance(name, str | os.PathLike)), None)


def _has_no_inode(path: Path) -> bool:
    """Whether a disk is full since it counts its files, though there may be space; not every one does, or says so."""
    if not hasattr(os, "statvfs"):
        return False
    with suppress(OSError):
        found = os.statvfs(_existing(path))
        return bool(found.f_files) and not found.f_favail
    return False


def _existing(path: Path) -> Path:
    """A path, or the nearest folder above it that there is."""
    return next(each for each in (path, *path.absolute().parents) if each.exists())


def _target_of(error: BaseException) -> Path | None:
    """The file that an error names, or that another one was to become."""
    targets = (link.filename2 for link in chain(error) if isinstance(link, OSError) and link.filename2)
    return next(map(Path, targets), file_of(error))


def _refused(error: BaseException, number: int, within: Path, temporary: Path | None) -> Path | None:
    """What is there already within a folder, and has refused: to be made writable, or to be removed by hand."""
    named = _target_of(error)
    if number not in REFUSED or named is None or not named.exists() or named == within:
        return None
    is_inside = named.absolute().is_relative_to(within.absolute())
    return named if is_inside and not (temporary and named.is_relative_to(temporary)) else None


def _number(error: BaseException, among: tuple[int, ...]) -> int | None:
    """The system's number of the first error of these that led to this one."""
    numbers = (
        link.errno if isinstance(link, OSError) and link.errno else _said(str(link).lower()) for link in chain(error)
    )
    return next((number for number in numbers if number in among), None)


def _said(text: str) -> int | None:
    if found := NUMBER.search(text):
        return int(found[1])
    if any(words in text for words in ARCHIVES):
        return errno.ENOSPC
    return next((number for words, number in WORDS.items() if words in text), None)


def _is_about(error: BaseException, number: int, within: Path) -> bool:
    """Whether an error is about what is written, and not about something that is read meanwhile."""
    if number in FULL:
        return True
    is_explained = isinstance(error, ClmError) and not isinstance(error, OutputError)
    return not is_explained and not _is_elsewhere(error, within)


def _is_elsewhere(error: BaseException, within: Path) -> bool:
    named = file_of(error)
    if named is None or (named.name == str(named) and not named.exists()):  # A name alone, such as of what is removed.
        return False
    return not named.resolve().is_relative_to(within.resolve())


def _explained(number: int, path: Path, needs: int = 0, so_far: int = 0, *, verb: str = "written") -> DiskError:
    sizes = _sizes(number, path, needs, so_far)
    if number in FULL:
        return DiskFullError(f"{said_of_full_disk(path)}{sizes}")
    remedy = "its disk fails, or is not there any more"
    if number in REFUSED:
        remedy = "make it readable" if verb == "read" else "make it writable"
    if number == errno.EFBIG:
        remedy = "a limit of this process (`ulimit -f`), or of the file system, is below the size of the file"
    return DiskError(f"{path} cannot be {verb}: {os.strerror(number)}: {remedy}{sizes}")


def _sizes(number: int, path: Path, needs: int, so_far: int) -> str:
    said = ["your quota is used up"] * (number == errno.EDQUOT)
    if needs or so_far:
        said.append(f"{shown(needs)} are needed" if needs > so_far else f"more than {shown(so_far)} are needed")
    with suppress(OSError):
        said.append(f"{shown(free_at(path) + so_far)} are free")
    return f" ({', '.join(said)})" if said else ""
