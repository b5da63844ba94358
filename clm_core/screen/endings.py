"""How a command ends after an error: one line, an exit code, and a traceback kept in a file."""

import platform
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from clm_core.durable import replace
from clm_core.durable.disk_errors import file_of, is_disk_full, said_of_full_disk
from clm_core.errors import ClmError, LostProcessError, ProcessError, StoppedError, first_line, is_out_of_memory
from clm_core.redaction import without_secrets
from clm_core.screen.exit_codes import ExitCode, code_of, is_not_allowed, signal_of
from clm_core.screen.signals import ended_by
from clm_core.screen.standard_streams import abandon, complain

ERROR_LOG = "error.log"
"""The traceback in the folder of a run that an unexpected error ended."""

NAME, FAILED = "clm", "clm: error"
"""What the lines that end a command begin with."""

LONGEST = 500
"""The most characters shown of a foreign message."""

FOLDER = "clm_run"
"""The attribute of an error that names the run's folder for its traceback."""


@contextmanager
def of_run(folder: Path) -> Iterator[None]:
    """Attribute an error in the block to the run in this folder."""
    try:
        yield
    except Exception as error:
        mark(error, folder)
        raise


def mark(error: BaseException, folder: Path) -> None:
    """Attribute an error to the run in this folder, which stays."""
    vars(error).setdefault(FOLDER, folder)


def end(error: BaseException, argv: list[str], *, verbose: bool, say: Callable[[str], None] = complain) -> int:
    """Explain in one line on standard error what ended a command, save a useful traceback, and return the code.

    `say` gets that line, where it is not to go to standard error.
    """
    code = code_of(error)
    if code == ExitCode.PIPE_CLOSED:
        abandon(sys.stdout)
        abandon(sys.stderr)
    elif isinstance(error, StoppedError) or signal_of(error) is not None:
        say(f"{NAME}: {without_secrets(line_of(error))}")
    else:
        line = without_secrets(line_of(error))
        if code == ExitCode.CRASHED and not isinstance(error, ProcessError | LostProcessError):
            log = _log(error, argv)
            if verbose:
                complain(log.rstrip())
            line += f" ({_kept(log, vars(error).get(FOLDER))})"
        say(f"{FAILED}: {line}")
    return code


def line_of(error: BaseException) -> str:
    """What ended a command, in a line."""
    signum = None if isinstance(error, StoppedError) else signal_of(error)
    if isinstance(error, ClmError):
        said = " ".join(str(error).splitlines())
        return said if signum is None else f"{ended_by(signum)}: {said}"  # It was raised while the command was ending.
    if signum is not None:
        return ended_by(signum)
    if is_disk_full(error):
        return said_of_full_disk(_full_path(error))
    if is_not_allowed(error):
        return _not_allowed(error)
    if is_out_of_memory(error):
        return (
            f"out of memory ({type(error).__name__}): a smaller batch size or --block-size needs less; in a training, "
            "--auto-find-batch-size finds a batch that fits"
        )
    if isinstance(error, RecursionError):
        said = "something is nested too deeply"
    else:
        said = " ".join(first_line(error, otherwise="").split())[:LONGEST]
    return f"unexpected {type(error).__name__}{': ' * bool(said)}{said}"


def _not_allowed(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return "no temporary folder is writable: set TMPDIR to one that is"


def _full_path(error: BaseException) -> str:
    """The file that could not be written, or the most likely folder."""
    return str(file_of(error) or vars(error).get(FOLDER) or f"{Path.cwd()} or {tempfile.gettempdir()}")


def _log(error: BaseException, argv: list[str]) -> str:
    lines = [
        f"{time.strftime('%Y-%m-%d %H:%M:%S %z')}",
        f"clm {metadata.version('clm')}, python {platform.python_version()}, {platform.platform()}",
        f"clm {shlex.join(argv)}",
        "",
        *traceback.format_exception(error),
    ]
    return without_secrets("\n".join(line.rstrip("\n") for line in lines)) + "\n"


def _kept(log: str, run: Path | None) -> str:
    """Keep a traceback, and say where."""
    for folder in (run, None):
        try:
            return f"traceback: {_write(log, folder)}"
        except OSError:
            continue
    return "the traceback could not be saved: --verbose prints it"


def _write(log: str, run: Path | None) -> Path:
    if run is not None:
        replace(run / ERROR_LOG, log.encode(errors="backslashreplace"))
        return run / ERROR_LOG
    with tempfile.NamedTemporaryFile(
        "w", prefix="clm-error-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as file:
        file.write(log)
    return Path(file.name)
