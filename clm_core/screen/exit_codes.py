"""Every exit code of `clm`, and which error has which."""

import errno
import os
from collections.abc import Iterator
from enum import IntEnum

from clm_core.errors import ClmError, DiskFullError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""The system's errors for a full disk and for an exceeded quota."""


class ExitCode(IntEnum):
    """How a command ended; `meaning` explains it."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> "ExitCode":
        """A code with its meaning."""
        member = int.__new__(cls, code)
        member._value_, member.meaning = code, meaning
        return member

    DONE = 0, "success"
    DIFFERENT = 1, "finished, but the compared runs differ, or what was checked is not as it should be"
    INPUT = 2, "an option, data, a model, a backend, a folder or an account cannot be used as requested"
    NOT_UPLOADED = 3, "the result is on disk, but the upload to the Hub failed"
    DISK_FULL = 4, "the disk is full, or your quota is used up"
    CRASHED = 70, "unexpected error; the message names the file with the traceback"
    INTERRUPTED = 130, "interrupted by Ctrl-C (128 + the number of the signal, as for every other signal)"
    PIPE_CLOSED = 141, "the reader of standard output, such as `head`, closed it (128 + SIGPIPE)"


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
    """Whether there was no space left; some libraries raise a different error for it, and some errors hide another."""
    words = [os.strerror(number).lower() for number in FULL]
    return any(
        (isinstance(link, OSError) and link.errno in FULL) or any(word in str(link).lower() for word in words)
        for link in chain(error)
    )


def is_not_allowed(error: BaseException) -> bool:
    """Whether the user lacks a permission to read or write, which they can change."""
    no_temporary_folder = isinstance(error, FileNotFoundError) and "temporary directory" in str(error)
    return no_temporary_folder or (isinstance(error, PermissionError) and bool(error.filename))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that led to it, hidden ones too."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
