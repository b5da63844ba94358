"""The command `clm`: parse the command line and run the command."""

import argparse
import itertools
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from clm_core import options
from clm_core.config import COMMANDS, Command, DeviceOptions
from clm_core.errors import OptionError
from clm_core.options.hints import commands_with
from clm_core.options.parser import Parser, WithoutValueError
from clm_core.options.recipes import list_recipes
from clm_core.registry import VARIABLE, list_backends
from clm_core.screen import signals
from clm_core.screen.standard_streams import escaped_output, open_closed, show

OF_EVERY_COMMAND = ("--backend", "--json", "--verbose", "--version", "--help")
"""The flags that may stand before the command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return one of the codes of `clm_core.screen.exit_codes`."""
    environment, arguments = dict(os.environ), list(sys.argv[1:] if argv is None else argv)
    open_closed()
    try:
        with signals.handled(), escaped_output():
            return _run(arguments)
    except SystemExit:  # After --help and --version.
        raise
    except BaseException as error:
        from clm_core.launch import worker
        from clm_core.screen.endings import end

        code = worker.code_after(error, end(error, arguments, verbose="--verbose" in arguments, say=worker.say(error)))
        if not worker.is_alone():  # What the error holds is not taken apart either.
            worker.tell(error)
            signals.leave(code)
        return code
    finally:  # The caller's environment is restored: what the command set is for its frameworks only.
        os.environ.clear()
        os.environ.update(environment)


def _run(argv: list[str]) -> int:
    argv, for_launcher = _split(argv)
    _check_order(argv)
    parser = _parser(argv)
    try:
        namespace, unknown = parser.parse_known_args(argv)
    except WithoutValueError as error:
        raise error.among(argv) from None
    name = getattr(namespace, "command", None)
    if unknown:
        raise _unknown_argument(unknown[0], name)
    if name is None:
        parser.print_help()
        return 0
    _set_environment()
    backend = getattr(namespace, "backend", None)
    if backend and not COMMANDS[name].with_backend:
        raise OptionError(f"--backend {backend}: {name} {COMMANDS[name].without_backend}")
    from clm_core.commands.call import Call

    code: int = import_module(f"clm_core.commands.{name.replace('-', '_')}").run(Call.parsed(namespace, for_launcher))
    return code


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """The arguments of a command that may start processes, and, after `--`, those of its launcher."""
    starts = {
        name for name, command in COMMANDS.items() if command.config and issubclass(command.config, DeviceOptions)
    }
    if "--" not in argv or not starts & set(argv):
        return argv, []
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]


def _check_order(argv: Sequence[str]) -> None:
    """Make sure that nothing but what every command takes stands before the command.

    Raises:
        OptionError: an option of a command does; or there is no command.
    """
    before = list(itertools.takewhile(lambda argument: argument not in COMMANDS, argv))
    own = [flag for flag in before if flag.startswith("--") and flag.split("=")[0] not in OF_EVERY_COMMAND]
    if not own:
        return
    flag = own[0].split("=")[0]
    if len(before) < len(argv):
        raise OptionError(f"{flag} stands before the command: the order is clm {argv[len(before)]} {flag} ...")
    first, *more = commands_with().get(flag.removeprefix("--").replace("-", "_"), [""])
    if first and not _has_words(before[: before.index(own[0])]):
        others = f", or with {', '.join(more)}" * bool(more)
        raise OptionError(f"{flag} is given without a command: clm {first} {flag} ...{others}")


def _has_words(arguments: list[str]) -> bool:
    """Whether there is something that may be meant as a command: no flag, nor the backend."""
    pairs = zip(["", *arguments], arguments, strict=False)
    return any(not word.startswith("-") and earlier != "--backend" for earlier, word in pairs)


def _set_environment() -> None:
    """Turn telemetry off, and other libraries' progress bars if there is no terminal."""
    import logging

    # A thread that outlives the command would print its message, signed addresses too, as an error of the log itself.
    logging.raiseExceptions = False
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    common = {with_backend: _common_flags(with_backend=with_backend) for with_backend in (True, False)}
    parser = Parser(
        prog="clm",
        description="Causal language models: one recipe, every framework.",
        epilog="`clm train` alone, with --backend if there are several, trains a small model on the built-in sample "
        "in a minute, without a network.",
        parents=[common[True]],
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action=_ShowVersion)
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", parser_class=Parser)
    for name, command in COMMANDS.items():
        description = command.help[0].upper() + command.help[1:] + "."
        parents = [common[command.with_backend]]
        sub = commands.add_parser(name, help=command.help, description=description, parents=parents, allow_abbrev=False)
        if name in argv:  # To build the flags of every command takes longer than all the rest of the help.
            _add_command_flags(sub, name, command)
    return parser


class _ShowVersion(argparse.Action):
    """Print the version and end; what finds it out takes as long to import as a third of the help."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        show(f"clm {version('clm')}")
        parser.exit()


def _common_flags(*, with_backend: bool) -> Parser:
    """Those of every command; `--backend` is hidden where it means nothing, but known, to be rejected by its name."""
    common = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    shown = f"the framework (or {VARIABLE}; default: the only one installed)"
    common.add_argument(
        "--backend",
        action=options.Once,
        metavar="NAME",
        help=shown if with_backend else argparse.SUPPRESS,
    )
    common.add_argument(
        "--json", action="store_true", help="print one JSON object on standard output, and nothing else"
    )
    common.add_argument("--verbose", action="store_true", help="show what the framework prints")
    return common


def _add_command_flags(parser: argparse.ArgumentParser, name: str, command: Command) -> None:
    if command.argument:
        argument, help = command.argument
        parser.add_argument(argument, nargs=None if command.argument_required else "?", help=help)
    if command.config is None:
        return
    if command.reads_config:
        recipes = ", ".join(list_recipes())
        parser.add_argument(
            "--config",
            action=options.Once,
            metavar="FILE",
            help=f"options from a YAML file, or from a recipe: {recipes}",
        )
    options.add_flags(parser, command.config)
    if name in ("train", "parity"):
        _add_backend_flags(parser, interpreters=name == "parity")


def _add_backend_flags(parser: argparse.ArgumentParser, *, interpreters: bool) -> None:
    for status in list_backends():
        if interpreters:
            flag = parser.add_argument(
                f"--python-{status.name}", action=options.Once, dest=f"python.{status.name}", metavar="PATH"
            )
            flag.default, flag.help = (
                argparse.SUPPRESS,
                f"the Python interpreter with backend {status.name}; default: this one",
            )
        if status.backend is not None:
            title = f"Options of backend {status.name} only"
            options.add_flags(parser, status.backend.options, prefix=f"{status.name}-", group=title)


def _unknown_argument(argument: str, name: str | None) -> OptionError:
    """What is wrong with an argument of a command, or with one where no command is named."""
    if not argument.startswith("-"):
        return OptionError(f"unexpected argument {argument!r}: options begin with --; put text with spaces in quotes")
    flag = argument.split("=")[0]
    command = COMMANDS[name] if name else None
    if flag == "--config" and command and not (command.config and command.reads_config):
        return OptionError(f"--config: {name} reads no configuration file: leave it out")
    known = [option.name for option in options.list_options(command.config)] if command and command.config else []
    return options.unknown(
        flag.lstrip("-").replace("-", "_"),
        [*known, "config", "backend", "json", "verbose", "version"],
        flag,
        otherwise=f"; `{' '.join(filter(None, ['clm', name]))} --help` shows those that exist",
    )
