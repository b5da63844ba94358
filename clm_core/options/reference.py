"""Writes the generated parts of docs/reference.md: `python -m clm_core.options.reference docs/reference.md`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clm_core.config import COMMANDS
from clm_core.options import Option, list_options, shown
from clm_core.registry import list_backends
from clm_core.screen.exit_codes import ExitCode

BEGIN, END = "<!-- {}: begin -->", "<!-- {}: end -->"
OURS = "clm"
"""The distribution whose backends are listed, so that the page does not depend on what else is installed."""


def reference() -> str:
    """All options as Markdown tables: those of `train` first, then the other or different ones of each command."""
    known: set[tuple[str, str, Any]] = set()
    parts = [
        table for name, command in COMMANDS.items() if command.config for table in _tables(name, command.config, known)
    ]
    for status in list_backends():
        if status.distribution == OURS and status.backend:
            options = [option for option in list_options(status.backend.options) if not option.metadata["moved"]]
            title = f"`train`, on backend `{status.name}` only (in a file: under the key `{status.name}`)"
            parts.append(_table(title, options, prefix=f"{status.name}-"))
    return "\n".join(parts)


def insert(page: str) -> str:
    """The page with the current reference between the marks."""
    for name, text in (("options", reference()), ("exit codes", exit_codes()), ("shared options", shared_options())):
        page = between_marks(page, name, text)
    return page


def between_marks(page: str, name: str, text: str) -> str:
    """The page with this text between the marks of this name, instead of what is there."""
    begin, end = BEGIN.format(name), END.format(name)
    before, rest = page.split(begin)
    return f"{before}{begin}\n\n{text}\n{end}{rest.split(end)[1]}"


def exit_codes() -> str:
    """All exit codes, as a Markdown table."""
    rows = [f"| {code.value} | {code.meaning} |" for code in ExitCode]
    return "\n".join(["| exit code | |", "| --- | --- |", *rows, ""])


def shared_options() -> str:
    """A sentence on the options that belong to the command line, and which commands take them."""
    with_backend = [f"`{name}`" for name, command in COMMANDS.items() if command.with_backend]
    others = [
        f"`{name}`"
        for name, command in COMMANDS.items()
        if command.config and command.reads_config and not command.with_backend
    ]
    return (
        f"Besides these, every command takes `--json` and `--verbose`. {_and(with_backend)} take `--backend`;\n"
        f"these and {_and(others)} take `--config`, a YAML file or the name of a recipe. "
        "`clm COMMAND --help` shows all of them.\n"
    )


def _and(names: list[str]) -> str:
    return " and ".join([*([", ".join(names[:-1])] if names[1:] else []), names[-1]])


def _tables(command: str, config: type, known: set[tuple[str, str, Any]]) -> Iterator[str]:
    options = [option for option in list_options(config) if _identity(option) not in known]
    for group in dict.fromkeys(option.group for option in options):
        yield _table(f"`{command}`: {group[0].lower()}{group[1:]}", [o for o in options if o.group == group])
    known.update(map(_identity, options))


def _identity(option: Option) -> tuple[str, str, Any]:
    """What a reader sees of an option: one that differs in any of it is listed again."""
    return option.name, option.help, option.default


def _table(title: str, options: list[Option], prefix: str = "") -> str:
    rows = [
        f"| `--{prefix}{option.flag[2:]}` | {_values(option)} | {_default(option)} "
        f"| {option.help.replace('|', chr(92) + '|')} |"
        for option in options
    ]
    return "\n".join([f"**{title}**", "", "| option | values | default | |", "| --- | --- | --- | --- |", *rows, ""])


def _values(option: Option) -> str:
    if option.kind is bool:
        return "`yes`, `no`"
    return ", ".join(f"`{value}`" for value in option.choices or (option.metavar,))


def _default(option: Option) -> str:
    return f"`{shown(option.default)}`" if option.default not in (None, ()) else ""


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(insert(Path(name).read_text(encoding="utf-8")), encoding="utf-8")
