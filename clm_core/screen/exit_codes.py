"""Every exit code of `clm`, once: the command, the sides of a comparison and the README have them from here."""

import errno
import os
from collections.abc import Iterator
from enum import IntEnum

from clm_core.errors import ClmError, DiskFullError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""The system's errors for a disk that is full, and for a share of it that is used up."""


class ExitCode(IntEnum):
    """How a command ended; `meaning` says it in words."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> "ExitCode":
        """A code with its meaning."""
        member = int.__new__(cls, code)
        member._value_, member.meaning = code, meaning
        return member

    DONE = 0, "all that was asked for is done"
    DIFFERENT = 1, "it is done, and what was compared differs, or what was looked at is not as it should be"
    INPUT = 2, "something given cannot be used as asked: an option, data, a model, a backend, a folder, an account"
    NOT_UPLOADED = 3, "all that was asked for is on disk, and the upload to the Hub failed"
    DISK_FULL = 4, "the disk is full, or what it has for you is used up"
    CRASHED = 70, "an error that nobody foresaw; the line names the file that has its traceback"
    INTERRUPTED = 130, "Ctrl-C ended it (128 + the number of the signal, as for every other signal)"
    PIPE_CLOSED = 141, "whoever read what it prints, such as `head`, wanted no more (128 + SIGPIPE)"


def code_of(error: BaseException) -> ExitCode:
    """The code of a command that this error ended."""
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return ExitCode.PIPE_CLOSED
    if isinstance(error, DiskFullError) or is_disk_full(error):
        return ExitCode.DISK_FULL
    return ExitCode.INPUT if isinstance(error, ClmError) or is_not_allowed(error) else ExitCode.CRASHED


def is_disk_full(error: BaseException) -> bool:
    """Whether there was no space left; some libraries say so in an error of their own, and some errors hide another."""
    words = [os.strerror(number).lower() for number in FULL]
    return any(
        (isinstance(link, OSError) and link.errno in FULL) or any(word in str(link).lower() for word in words)
        for link in chain(error)
    )


def is_not_allowed(error: BaseException) -> bool:
    """Whether the system does not let this person write or read somewhere, which they can change."""
    no_temporary_folder = isinstance(error, FileNotFoundError) and "temporary directory" in str(error)
    return no_temporary_folder or (isinstance(error, PermissionError) and bool(error.filename))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that led to it, hidden ones too."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
