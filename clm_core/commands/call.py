"""A parsed command line: what was given, and where progress and the result go."""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clm_core.backend import Backend
from clm_core.commands.first_look import look
from clm_core.launch import mailbox, worker
from clm_core.options import Given, from_flags
from clm_core.registry import get_backend
from clm_core.results import Publication, Result
from clm_core.screen import quiet
from clm_core.screen.exit_codes import ExitCode
from clm_core.screen.progress import Progress, terminal_progress
from clm_core.screen.standard_streams import print_json, show

NOT_OPTIONS = {"command", "backend", "json", "verbose", "config", "prompt", "folder"}
"""What a parsed command line has besides the options of the command."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A parsed command line."""

    given: dict[str, Given]
    """The options of the command."""
    config: str | None
    """A recipe, or a configuration file."""
    backend: str | None
    json: bool
    verbose: bool
    argument: str | None
    """The prompt or the folder, for a command that takes one."""
    for_launcher: tuple[str, ...] = ()
    """What stood after `--`."""
    since: float = field(default_factory=time.time)
    """When the command began, in seconds since the epoch."""

    @classmethod
    def parsed(cls, namespace: argparse.Namespace, for_launcher: Sequence[str] = ()) -> "Call":
        """The call that a parser has read."""
        values = vars(namespace)
        return cls(
            given=from_flags(namespace, set(values) - NOT_OPTIONS),
            config=values.get("config"),
            backend=values.get("backend"),
            json=values.get("json", False),
            verbose=values.get("verbose", False),
            argument=values.get("prompt", values.get("folder")),
            for_launcher=tuple(for_launcher),
        )

    @property
    def folder(self) -> Path:
        """The argument, of a command that works on a folder."""
        assert self.argument is not None
        return Path(self.argument)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Where progress is shown, with all other output hidden."""
        with quiet.hushed(verbose=self.verbose) as stream:
            yield Progress() if mailbox.take(mailbox.SILENT) else terminal_progress(stream)

    @contextmanager
    def session(self) -> Iterator[tuple[Backend, Progress]]:
        """The backend that was chosen, and where progress is shown."""
        backend = get_backend(self.backend)
        with self.progress() as progress:
            yield backend, progress

    def start(self, backend: Backend, config: Any) -> None:
        """Start the framework, unless there is an error that can be found without it."""
        look(config, backend.name)
        backend.start(verbose=self.verbose)

    def end(self, result: Result, text: Callable[[], str]) -> ExitCode:
        """Print a result, where other processes do the same as this one, once; the code of what is done."""
        if worker.prints():
            self.print(result, text)
        worker.hand_over(result)
        return ExitCode.DONE if mailbox.folder() else code_of_upload(getattr(result, "hub", None))

    def print(self, result: Result, text: Callable[[], str]) -> None:
        """Print a result, as JSON or as a summary."""
        if self.json:
            print_json(result.to_json())
        else:
            show(text())


def code_of_upload(done: Publication | None) -> ExitCode:
    """The exit code of a command whose work is done, and perhaps uploaded."""
    return ExitCode.NOT_UPLOADED if done and done.state == "failed" else ExitCode.DONE
