"""The parser of the command line: argparse's, with errors that name the flag, what was given to it, and the way out."""

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from clm_core.config import COMMANDS
from clm_core.errors import OptionError
from clm_core.options import hints
from clm_core.screen.standard_streams import show

NUMBER = re.compile(r"-(\.?\d.*|inf|nan)$", re.IGNORECASE)
"""What is a value, and no flag, although it begins with a minus: -1, -1e-4, -1h."""

_NO_VALUE = re.compile(r"argument (?P<flags>\S+): expected (one|at least one) argument", re.ASCII)
_ONE_TOO_MANY = re.compile(r"argument (?P<flags>\S+): ignored explicit argument (?P<value>.*)", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """Raises `OptionError` where argparse would print its usage and end the process."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._negative_number_matcher = NUMBER  # argparse takes -1h and -1e-4 for flags.

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in the words of clm, where they say more than argparse's."""
        if found := _NO_VALUE.fullmatch(message):
            raise WithoutValueError(found["flags"].split("/"))
        if found := _ONE_TOO_MANY.fullmatch(message):
            ways = " or ".join(found["flags"].split("/"))
            raise OptionError(f"{ways} takes no value, and was given {found['value']}: leave the value out")
        raise OptionError(f"{message} (see {self.prog} --help)")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.dest == "command" and value not in COMMANDS:
            raise OptionError(f"unknown command {value!r}{hints.of_command(value, COMMANDS)}")
        super()._check_value(action, value)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print help or the version, the only things that this parser prints."""
        show(message.removesuffix("\n"))


class WithoutValueError(Exception):
    """A flag that takes a value, under one of these names, was given none."""

    def __init__(self, flags: Sequence[str]) -> None:
        super().__init__(flags)
        self.flags = flags

    def among(self, argv: Sequence[str]) -> OptionError:
        """The error for a command line: what follows the flag may be meant as its value."""
        pairs = zip(argv, [*argv[1:], None], strict=True)
        found = ((one, other) for one, other in pairs if one in self.flags and _is_no_value(other))
        flag, after = next(found, (self.flags[-1], None))
        if after is None:
            return OptionError(f"{flag} needs a value")
        if after.startswith("--"):
            return OptionError(f"{flag} needs a value, and is followed by {after}")
        return OptionError(
            f"{flag} needs a value, and {after} is read as an option: if it is the value, give {flag}={after}"
        )


def _is_no_value(argument: str | None) -> bool:
    """Whether what follows a flag is no value for it, or nothing follows it."""
    return argument is None or (argument.startswith("-") and argument != "-" and not NUMBER.match(argument))
