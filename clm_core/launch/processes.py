"""Starts the processes of a command with a backend's launcher, passes a signal on to them, and waits."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from clm_core.errors import ProcessError, StoppedError
from clm_core.launch import mailbox
from clm_core.options.file import to_yaml
from clm_core.options.resolve import Request
from clm_core.screen import signals
from clm_core.screen.endings import FAILED, NAME
from clm_core.screen.exit_codes import ExitCode
from clm_core.screen.progress import Progress

PAUSE = 0.2
"""Seconds between two looks at which processes there are."""

LONGEST_ALONE = 15.0
"""Seconds that a launcher has to end after a signal, or once a training was stopped, if it has no processes here."""

LONGEST_END = 60.0
"""Seconds in which processes are to end after an error here, before they are killed."""

WAITING = "several machines: the processes are started once the same command runs on as many as --nnodes says"


@contextmanager
def place() -> Iterator[Path]:
    """A folder for what the processes are given, and what they leave."""
    with tempfile.TemporaryDirectory(prefix="clm-launch-") as folder:
        yield Path(folder)


def on_several_machines(for_launcher: Sequence[str]) -> bool:
    """Whether the arguments for a launcher say that it starts some of the processes, and others are elsewhere."""
    names = {argument.partition("=")[0].replace("_", "-") for argument in for_launcher}
    return "--nnodes" in names


def run(
    folder: Path, launcher: Sequence[str], command: str, request: Request[Any], progress: Progress, *, verbose: bool
) -> None:
    """Have a launcher start a command of clm in several processes, and wait for their end.

    The process that leads shows its progress on standard error, if there is any `progress` to be shown.

    Raises:
        ClmError: one has failed; with its message, and with the exit code for the command.
    """
    if type(progress) is Progress:
        mailbox.put(mailbox.SILENT, "yes", folder)
    process = subprocess.Popen(
        [*launcher, "-m", "clm_core", *_arguments(folder, command, request, verbose=verbose)],
        stdin=subprocess.PIPE,  # It ends when this process does, however that ends.
        stderr=_standard_error(),
        env={**os.environ, mailbox.VARIABLE: str(folder)},
        start_new_session=True,  # Ctrl-C is for this process, which passes it on once.
    )
    try:
        if on_several_machines(launcher):
            _in_background(_end_once_stopped, folder, process)
        with signals.passed_on(lambda number: _in_background(_tell, folder, process, number)):
            code = process.wait()
    except BaseException:
        _end(process)
        raise
    if code or mailbox.take(mailbox.RESULT, folder) is None:
        _raise_failure(folder, code)


def _standard_error() -> int | None:
    """The descriptor of what this process writes to, which may not be its own of that name; a notebook has none."""
    with suppress(OSError, AttributeError, ValueError):
        return sys.stderr.fileno()
    return None


def _arguments(folder: Path, command: str, request: Request[Any], *, verbose: bool) -> list[str]:
    """The command, with every option in a file, whatever its default is, so that nothing is decided again."""
    file = folder / "options.yaml"
    once = {"overwrite_cache": False} if folder.joinpath(mailbox.PREPARED).exists() else {}
    text = to_yaml(replace(request.config, **once), {request.backend.name: request.backend_options}, every=True)
    file.write_text(text, encoding="utf-8")
    switches = ["--verbose"] if verbose else []
    return ["--backend", request.backend.name, *switches, command, "--config", str(file)]


def _in_background(watch: Callable[..., None], *given: Any) -> None:
    threading.Thread(target=watch, args=given, name="clm-launch", daemon=True).start()


def _end_once_stopped(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """End a launcher that has no processes here, after a training was stopped: torchrun waits for those elsewhere.

    They may be gone with their machine, and it would wait five minutes.
    """
    alone = 0.0
    while process.poll() is None and alone < LONGEST_ALONE:
        time.sleep(PAUSE)
        is_over = _was_stopped(folder) and mailbox.first_process(folder) is None
        alone = alone + PAUSE if is_over else 0.0
    with suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def _was_stopped(folder: Path) -> bool:
    """Whether processes here have ended because the training was stopped, not by a failure, nor once started again."""
    if mailbox.take(mailbox.RESULT, folder) is not None:
        return False
    if mailbox.take(mailbox.STOPPED, folder) is not None:
        return True
    left = mailbox.take(mailbox.ERROR, folder)
    return left is not None and _is_of_stop(json.loads(left)["code"])


def _is_of_stop(code: int) -> bool:
    return code == ExitCode.STOPPED or code > 128


def _tell(folder: Path, process: subprocess.Popen[bytes], number: int) -> None:
    """Tell one of the processes, which tells the others; where there is none yet, there is nothing to be saved.

    It continues while the launcher starts them again.
    A launcher that has none left may wait for those of another machine, and hear nothing: it is given some time.
    """
    told: set[int] = set()
    alone = 0.0
    while process.poll() is None:
        first = mailbox.first_process(folder)
        with suppress(ProcessLookupError):
            if first is not None and first not in told:
                os.kill(first, number)
                told.add(first)
            elif first is None and not told and not alone:
                os.killpg(process.pid, signal.SIGTERM)
            elif first is None and alone > LONGEST_ALONE:
                os.killpg(process.pid, signal.SIGKILL)
        time.sleep(PAUSE)
        alone = alone + PAUSE if first is None else 0.0


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have all of them end, as they can: at first so that they save."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(LONGEST_END)
            return


def _raise_failure(folder: Path, code: int) -> None:
    """Raise what the processes have left; on a machine where none of them leads, they may have left nothing."""
    # A launcher may have been ended when the processes had.
    stopped = mailbox.take(mailbox.STOPPED, folder) if code in (0, -signal.SIGKILL) else None
    if (left := mailbox.take(mailbox.ERROR, folder) or stopped) is not None:
        found = json.loads(left)
        if found["code"] > 128 and found["code"] != code and _is_of_signal(code):  # They ended because of that one.
            raise _killed(code)
        line = found["line"].removeprefix(f"{FAILED}: ").removeprefix(f"{NAME}: ")
        if _is_of_stop(found["code"]):
            raise StoppedError(line, signum=found["code"] - 128 if found["code"] > 128 else None)
        advised = found.get("advised", False)
        if found["code"] == ExitCode.CRASHED and _is_of_signal(code):  # It has lost the one that did.
            raise ProcessError(f"{signal.Signals(code - 128).name}: {line}", code=code, advised=advised)
        raise ProcessError(line, code=found["code"], advised=advised)
    signals.check()
    if code < 0:
        by = signal.Signals(-code).name
        raise ProcessError(f"the launcher of the processes was ended by {by}", code=ExitCode.CRASHED)
    if _is_of_signal(code):
        raise _killed(code)
    if code:
        raise ProcessError(f"the processes ended with code {code}, and none of them said why", code=ExitCode.CRASHED)


def _is_of_signal(code: int) -> bool:
    return code - 128 in signal.valid_signals()


def _killed(code: int) -> ProcessError:
    by = signal.Signals(code - 128).name
    return ProcessError(f"one of the processes was ended by {by}, and the others with it", code=code)
