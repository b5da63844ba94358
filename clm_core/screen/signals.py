"""Signals that end a command: cleanly, or once a training has saved; a second one always ends it at once."""

import atexit
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from clm_core.errors import Interrupted
from clm_core.screen.standard_streams import clearing
from clm_core.stopping import Stop

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
"""The signals that are taken over, where the system has them."""


@contextmanager
def taken() -> Iterator[None]:
    """Take the signals over for the block: any of them ends the process at once, with a line and the code 128 + n.

    What the first one does, `handled` and `passed_to` change. Ignored signals, as SIGHUP is under nohup, stay ignored.
    Does nothing where they are taken over already, and outside of the main thread.
    """
    global _taken
    if _taken or threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    # Those that are ignored stay so; None is a handler that was not installed by Python, which could not put it back.
    before = {number: usual for number, usual in before.items() if usual not in (signal.SIG_IGN, None)}
    with _watched(set(before)):
        _taken = _Taken(before, _end_at_once)
        for number in before:
            signal.signal(number, _respond)
        try:
            yield
        finally:
            _put_back()
            _taken = None


@contextmanager
def handled() -> Iterator[None]:
    """Take the signals over for a command: the first one raises, so that whatever is unfinished is removed.

    Raises:
        Interrupted: there was a signal; at the end of the block if a library caught the error, or a training ended
            before it could stop; in place of the error that came of it where a library hid it.
    """
    with taken(), _at_first(_interrupt):
        try:
            yield
        except Exception as error:
            _check_hidden(error)
            raise
        check()


@contextmanager
def passed_to(stop: Stop, *, tells: bool = True) -> Iterator[None]:
    """In the block, the first signal asks a training to stop; only where signals are taken over, so not from Python.

    It says so if it `tells`: of several processes, one does.

    Raises:
        Interrupted: there was a signal before, and a library caught the error.
    """

    def ask(number: int) -> None:
        stop.ask(number)
        way = "finishing the step and saving" if stop.saves else "finishing the step"
        if tells:
            _tell(f"{signal.Signals(number).name}: {way}; again to end at once")

    check()
    with _at_first(ask):
        yield


def check() -> None:
    """End the command if there was a signal.

    Raises:
        Interrupted: there was.
    """
    if _taken and _taken.received is not None:
        raise Interrupted(_taken.received)


def answer_as_one_of_many(has_one_failed: Callable[[], bool] | None = None) -> None:
    """Answer signals as a process that works together with others, to the end of this one.

    Once one of them has failed, nothing is said of a signal: a launcher ends the others by it, and the error is said.
    """
    global _of_many, _has_one_failed
    _of_many, _has_one_failed = True, has_one_failed


@contextmanager
def passed_on(response: Callable[[int], None]) -> Iterator[None]:
    """In the block, the first signal is for the processes that this one started; what it does is given."""
    check()
    with _at_first(response):
        yield


def end_with_parent() -> None:
    """Have the end of standard input, at whose other end is the parent, end the command as SIGTERM does.

    Unless there was a signal before: Ctrl-C is sent to all processes of a terminal.
    """

    def wait() -> None:
        while os.read(0, 4096):
            pass
        if _taken and _taken.received is None:
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="clm-parent", daemon=True).start()


def leave(code: int) -> None:
    """After a signal, end the process with this code, without taking apart what it imported: that may take seconds.

    Also one of many that has failed or was stopped: a library may wait for the others, which are gone. Does nothing in
    any other case.
    """
    if _taken and (_taken.received is not None or (_of_many and code)):
        atexit._run_exitfuncs()  # Libraries remove their temporary files.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def ended_by(number: int) -> str:
    """What is said of a command that a signal ended."""
    return "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"


@dataclass
class _Taken:
    before: dict[int, Any]
    """What each of the signals did."""
    response: Callable[[int], None]
    """What the first one does."""
    received: int | None = None
    """The first one."""
    has_raised: bool = False
    """Whether it raised, so that what else is raised afterwards comes of it."""


_taken: _Taken | None = None
_of_many = False
_has_one_failed: Callable[[], bool] | None = None

SAME = 3.0
"""Seconds within which one of many processes takes a further signal for the same one: several may pass it on."""

TWICE = 0.03
"""Seconds within which any process takes the same number for the same signal: GNU timeout sends it twice."""

PATIENCE = 25.0
"""Seconds after which one of many ends without an answer: it may be waiting for a process that is no more."""


@contextmanager
def _at_first(response: Callable[[int], None]) -> Iterator[None]:
    """What the first signal does in the block, where signals are taken over."""
    if (taken := _taken) is None:
        yield
        return
    usual, taken.response = taken.response, response
    try:
        yield
    finally:
        taken.response = usual


def _respond(number: int, frame: object) -> None:
    """Python calls this, in the main thread and between two of its instructions; `_watch` answers a second signal."""
    if _taken and _taken.received is None:
        _taken.received = number
        _taken.response(number)


def _interrupt(number: int) -> None:
    if _taken:
        _taken.has_raised = True
    raise Interrupted(number)


def _check_hidden(error: Exception) -> None:
    """End the command if this error follows a signal and does not say so, as that of an import that NumPy repeats."""
    from clm_core.screen.exit_codes import signal_of

    if _taken and _taken.has_raised and signal_of(error) is None:
        check()


@contextmanager
def _watched(numbers: set[int]) -> Iterator[None]:
    """Have a thread end the process at the second of these signals, also while the main one runs a library's code."""
    reading, writing = os.pipe()
    if os.name == "posix":  # Where Python asks for it.
        os.set_blocking(writing, False)
    thread = threading.Thread(target=_watch, args=(reading, numbers), name="clm-signals", daemon=True)
    thread.start()
    usual = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)  # The number of each signal is written there.
    try:
        yield
    finally:
        signal.set_wakeup_fd(usual)
        os.close(writing)
        thread.join()
        os.close(reading)


def _watch(reading: int, numbers: set[int]) -> None:
    first = number = None
    while came := os.read(reading, 1):
        now = time.monotonic()
        if came[0] not in numbers:
            continue
        if first is None:
            first, number = now, came[0]
            if _of_many:
                timer = threading.Timer(PATIENCE, _end_unanswered, [came[0]])
                timer.daemon = True
                timer.start()
        elif now - first > (SAME if _of_many else TWICE if came[0] == number else 0.0):
            _end_at_once(came[0])


def _end_unanswered(number: int) -> None:
    if _taken and _taken.received is None:
        os._exit(128 + number)


def _end_at_once(number: int) -> None:
    _tell(f"clm: {ended_by(number)}")
    os._exit(128 + number)


def _tell(line: str) -> None:
    """Print on standard error past its buffer, which the main thread may be at, and only where that does not wait."""
    if _has_one_failed and _has_one_failed():
        return
    with suppress(OSError, ValueError):
        descriptor = sys.stderr.fileno()
        if os.name == "posix" and not select.select([], [descriptor], [], 0)[1]:
            return
        os.write(descriptor, f"{clearing(sys.stderr)}{line}\n".encode())  # A bar draws itself again.


def _put_back() -> None:
    if _taken:
        for number, usual in _taken.before.items():
            signal.signal(number, usual)


def _leave_to_parent() -> None:
    """In a forked process: the signals do what they did, and tell its parent's thread nothing."""
    if _taken:
        signal.set_wakeup_fd(-1)
        _put_back()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
