"""Errors that a person can act on: each names the value, where it was given and what to do."""

import difflib
from collections.abc import Iterable

from clm_core.redaction import without_credentials

SHOWN = 10
"""How many names an error lists."""

OF_MEMORY = {"MemoryError", "OutOfMemoryError", "ResourceExhaustedError"}
"""What Python, PyTorch and TensorFlow call the error that there is no memory left."""

WITHOUT_MEMORY = ("out of memory", "not enough memory", "allocate memory")
"""What PyTorch says of it where it has no name for it."""


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


class DivergedError(TrainingError):
    """The training has diverged: its loss, or what follows from it, is no longer a number, or far too high."""

    def __init__(self, message: str = "", *, step: int) -> None:
        super().__init__(message)
        self.step = step
        """The first step whose update may be the reason; what was saved before it is from before."""


class LostProcessError(TrainingError):
    """Another of the processes that train together ended."""

    def __init__(self, message: str = "", *, advised: bool = False) -> None:
        super().__init__(message)
        self.advised = advised
        """Whether the message says what there is of the run, and how to resume it."""


class StoppedError(TrainingError):
    """The training has stopped because it was asked to: by a signal, or by the file `stop` in its folder."""

    def __init__(self, message: str = "", *, signum: int | None = None) -> None:
        super().__init__(message)
        self.signum = signum
        """The number of the signal, if it was one."""


class OutputError(ClmError):
    """The output folder cannot be written, or already contains something that would be lost."""


class DiskError(OutputError):
    """The disk does not take what is written: it is full or fails, or a quota or a permission is lacking."""


class DiskFullError(DiskError):
    """There is no space left to write to, or a quota is used up."""


class HubError(ClmError):
    """The Hub cannot be reached, does not know who you are, or does not permit what you asked for."""


class ProcessError(ClmError):
    """One of the processes that a command started has failed, and has said why."""

    def __init__(self, message: str = "", *, code: int, advised: bool = False) -> None:
        super().__init__(message)
        self.code = code
        """The exit code of the command."""
        self.advised = advised
        """Whether the message says what there is of the run, and how to resume it."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the command, by Ctrl-C or otherwise."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or what it was raised for, says that there was no memory for something."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    said = str(error).lower()
    if kinds & OF_MEMORY or ("RuntimeError" in kinds and any(words in said for words in WITHOUT_MEMORY)):
        return True
    why = error.__cause__ or error.__context__
    return why is not None and is_out_of_memory(why)


def first_line(error: BaseException, *, otherwise: str | None = None) -> str:
    """What an error of a library says, in one line; its type where it says nothing, or what is given `otherwise`.

    A line that ends in a colon announces what the next one says, so that is there too.
    """
    said = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not said:
        return type(error).__name__ if otherwise is None else otherwise
    end = next((i for i, line in enumerate(said) if not line.endswith(":")), len(said) - 1)
    return " ".join(said[: end + 1])


def similar(name: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> list[str]:
    """The known names that this one may be a typo of, most similar first; `cutoff` is a ratio of `difflib`."""
    return difflib.get_close_matches(name, list(known), n=most, cutoff=cutoff)


def shown_names(names: Iterable[str]) -> str:
    """Names in a list that ends after ten."""
    found = [repr(name) if name != name.strip() else name[:60] + "..." * (len(name) > 60) for name in names]
    more = f" and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more


def did_you_mean(*names: object) -> str:
    """The end of a message that suggests names; empty without any."""
    return f"; did you mean {' or '.join(map(str, names))}?" if names else ""
