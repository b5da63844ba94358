"""Every exit code of `clm`, and which error has which."""

import errno
import signal
from enum import IntEnum

from clm_core.durable.disk_errors import chain, is_disk_full
from clm_core.errors import ClmError, DiskError, LostProcessError, ProcessError, StoppedError

OF_A_NAME = (errno.ENAMETOOLONG, errno.ELOOP)
"""Errors of the name of a file: no file can have it, or it is a link to itself."""


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
    DISK_FULL = 4, "the disk is full, your quota is used up, or the disk cannot be written"
    STOPPED = 5, "stopped as asked by the file `stop` in the run's folder; the message names the command that resumes"
    CRASHED = 70, "unexpected error, with its traceback in a file; or one of several processes died without a message"
    HUNG_UP = 129, "ended by SIGHUP: the terminal was closed (128 + the number of the signal, as for the others below)"
    INTERRUPTED = 130, "ended by SIGINT: Ctrl-C"
    KILLED = 137, "one of several processes was ended by SIGKILL, such as for want of memory"
    USER_1 = 138, "ended by SIGUSR1"
    USER_2 = 140, "ended by SIGUSR2"
    PIPE_CLOSED = 141, "the reader of standard output, such as `head`, closed it (SIGPIPE)"
    TERMINATED = 143, "ended by SIGTERM; a training that was stopped by a signal names the command that resumes"


def code_of(error: BaseException) -> int:
    """The code of a command that this error ended; also if the error came while a signal was ending it."""
    if (signum := signal_of(error)) is not None:
        return 128 + signum  # Where SIGUSR1 is another number than on Linux, it is not one of the table.
    if isinstance(error, StoppedError):
        return ExitCode.STOPPED
    if isinstance(error, ProcessError):
        return error.code
    if isinstance(error, LostProcessError):
        return ExitCode.CRASHED
    if isinstance(error, BrokenPipeError):
        return ExitCode.PIPE_CLOSED
    if isinstance(error, DiskError) or is_disk_full(error):
        return ExitCode.DISK_FULL
    return ExitCode.INPUT if isinstance(error, ClmError) or is_not_allowed(error) else ExitCode.CRASHED


def signal_of(error: BaseException) -> int | None:
    """The number of the signal that ended a command, if one did."""
    if isinstance(error, StoppedError):
        return error.signum
    interruption = next((link for link in chain(error) if isinstance(link, KeyboardInterrupt)), None)
    return None if interruption is None else getattr(interruption, "signum", signal.SIGINT)


def is_not_allowed(error: BaseException) -> bool:
    """Whether the system refused a place that the user named, or a temporary folder, which they can change."""
    if not isinstance(error, OSError):
        return False
    refused = isinstance(error, PermissionError) or error.errno in OF_A_NAME
    no_temporary_folder = isinstance(error, FileNotFoundError) and "temporary directory" in str(error)
    return no_temporary_folder or (refused and bool(error.filename))
