"""Writes options and exit codes into a page, at its marks: `python -m clm_core.options.reference docs/reference.md`."""

import sys
from collections.abc import Iterator
from pathlib import Path

from clm_core.config import COMMANDS
from clm_core.options import Option, list_options, shown
from clm_core.registry import list_backends
from clm_core.screen.exit_codes import ExitCode

BEGIN, END = "<!-- {}: begin -->", "<!-- {}: end -->"
OURS = "clm"
"""The distribution whose backends are listed; a reader's page is not to depend on what else is installed."""


def reference() -> str:
    """All options, as Markdown tables: those of `train` first, of the other verbs what they have besides."""
    known: set[tuple[str, str]] = set()
    parts = [
        table for name, command in COMMANDS.items() if command.config for table in _tables(name, command.config, known)
    ]
    for status in list_backends():
        if status.distribution == OURS and status.backend:
            options = list_options(status.backend.options)
            title = f"`train`, on backend `{status.name}` alone (in a file: under the key `{status.name}`)"
            parts.append(_table(title, options, prefix=f"{status.name}-"))
    return "\n".join(parts)


def insert(page: str) -> str:
    """A page with the reference of today between the marks."""
    for name, text in (("options", reference()), ("exit codes", exit_codes())):
        begin, end = BEGIN.format(name), END.format(name)
        before, rest = page.split(begin)
        page = f"{before}{begin}\n\n{text}\n{end}{rest.split(end)[1]}"
    return page


def exit_codes() -> str:
    """All exit codes, as a Markdown table."""
    rows = [f"| {code.value} | {code.meaning} |" for code in ExitCode]
    return "\n".join(["| exit code | |", "| --- | --- |", *rows, ""])


def _tables(verb: str, config: type, known: set[tuple[str, str]]) -> Iterator[str]:
    options = [option for option in list_options(config) if (option.name, option.help) not in known]
    for group in dict.fromkeys(option.group for option in options):
        yield _table(f"`{verb}`: {group[0].lower()}{group[1:]}", [o for o in options if o.group == group])
    known.update((option.name, option.help) for option in options)


def _table(title: str, options: list[Option], prefix: str = "") -> str:
    rows = [
        f"| `--{prefix}{option.flag[2:]}` | {_default(option)} | {option.help.replace('|', chr(92) + '|')} |"
        for option in options
    ]
    return "\n".join([f"**{title}**", "", "| option | default | |", "| --- | --- | --- |", *rows, ""])


def _default(option: Option) -> str:
    return f"`{shown(option.default)}`" if option.default not in (None, ()) else ""


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(insert(Path(name).read_text(encoding="utf-8")), encoding="utf-8")
