"""Errors that a person can act on: each names the value, where it was given and what to do."""

from clm_core.redaction import without_credentials


class ClmError(Exception):
    """Base of all errors that are caused by the input, not by clm; the command prints only the message."""

    def __init__(self, message: str = "") -> None:
        super().__init__(without_credentials(message))


class OptionError(ClmError):
    """An option is unknown, malformed, out of range, in conflict with another, or not supported by the backend."""


class DataError(ClmError):
    """The data cannot be read, has no such column, or is too small for what was asked."""


class ModelError(ClmError):
    """A model, tokenizer or checkpoint cannot be found, read, or used with this data."""


class BackendError(ClmError):
    """No such backend, or its framework is missing or of the wrong version."""


class TrainingError(ClmError):
    """The training cannot continue, for example because the loss is no longer a number."""


class OutputError(ClmError):
    """The output folder cannot be written, or already contains something that would be lost."""


class DiskFullError(OutputError):
    """There is no space left to write to."""


class HubError(ClmError):
    """The Hub cannot be reached, does not know who you are, or does not permit what you asked for."""


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
