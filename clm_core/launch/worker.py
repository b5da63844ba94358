"""One of the processes that carry out a command together: what it says, and what it leaves to the one that leads."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from clm_core.backend import ALONE, Backend, World
from clm_core.errors import ClmError, LostProcessError, StoppedError
from clm_core.launch import mailbox
from clm_core.registry import list_backends
from clm_core.results import Result
from clm_core.screen import signals
from clm_core.screen.exit_codes import ExitCode, code_of, signal_of
from clm_core.screen.standard_streams import complain

_world = ALONE
_backend: Backend | None = None


def begin(backend: Backend) -> None:
    """Begin a command that several processes may carry out together: those of this backend are told if it fails."""
    global _backend
    _backend = backend


def join(world: World) -> None:
    """Take part in what several processes do together, from here to the end of this one; alone, nothing changes."""
    _be_one_of(world)
    if _backend and not world.is_one_process:
        _backend.come()


def tell(error: BaseException) -> None:
    """Tell the others which error has ended this process, for as long as that may take, if there are any."""
    if _backend and not _world.is_one_process:
        with suppress(ClmError):  # It is what has ended this one, or is not the user's concern any more.
            _backend.leave(patient=signal_of(error) is None)


def is_alone() -> bool:
    """Whether no other process does the same together with this one."""
    return _world.is_one_process


def prints() -> bool:
    """Whether this process prints the result of the command."""
    return _world.leads and mailbox.folder() is None


def hand_over(result: Result) -> None:
    """Leave the result of the command to the process that started this one, if that is clm."""
    if _world.leads:
        mailbox.put(mailbox.RESULT, result.to_json())


def say(error: BaseException) -> Callable[[str], None]:
    """Where the line goes that says which error has ended this process: of several, the first to fail has it said.

    It goes to standard error, or to the process that started this one.
    """
    if _world is ALONE:
        _be_one_of(_found())
    if _world.is_one_process and mailbox.folder() is None:
        return complain
    return partial(_say, error)


def code_after(error: BaseException, code: int) -> int:
    """The exit code after an error: no failure, where all processes have stopped as asked, and a launcher waits."""
    return ExitCode.DONE if isinstance(error, StoppedError) and mailbox.folder() is not None else code


def _be_one_of(world: World) -> None:
    global _world
    _world = world
    if world.is_one_process:
        return
    signals.answer_as_one_of_many(mailbox.has_one_failed)
    if mailbox.folder() is not None:
        signals.end_with_parent()
        mailbox.put(f"{mailbox.PROCESS}{world.rank}", str(os.getpid()))


def _found() -> World:
    """The world of a process that has failed before it joined one, by what any backend reads in the environment."""
    for status in list_backends():
        with suppress(ClmError):
            if status.backend and (world := status.backend.world(None)).size > 1:
                return world
    return ALONE


def _say(error: BaseException, line: str) -> None:
    advised = isinstance(error, LostProcessError) and error.advised
    found = {"code": code_of(error), "line": line, "advised": advised}
    if isinstance(error, StoppedError) and not _world.leads:  # The one that leads knows what there is of the run.
        mailbox.put(mailbox.STOPPED, json.dumps(found | {"line": "stopped, as all processes of this training"}))
    elif mailbox.first_to_fail(found) and mailbox.folder() is None:
        complain(line if _world.leads else f"process {_world.rank // _world.local}: {line}")
