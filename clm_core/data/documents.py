"""Turns the cells of a row into a document: a text, a prompt and its completion, a filled template, a conversation."""

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from string import Formatter
from typing import Any

from clm_core.config import COLUMNS, DataOptions
from clm_core.data.texts import Conversation, Prompted
from clm_core.errors import DataError, OptionError

ESCAPES = {r"\n": "\n", r"\t": "\t", r"\\": "\\"}
"""What a shell cannot type: written like this in a template."""

TOOLS = "tools"
"""The column with what the assistant may call in a conversation, as other programs have it."""

OF_SHAREGPT = {"human": "user", "gpt": "assistant"}
"""The roles of messages as `from` and `value`, in the words of chat templates."""


@dataclass(frozen=True)
class Wanted:
    """The columns that a document is made of, and how."""

    columns: dict[str, str]
    """By name, the option that names it."""
    document: Callable[[Sequence[Any], str], Any]
    """From what is in the columns, and the place of the row; None where there is no document."""
    are_texts: bool = True
    """Whether the columns have texts, or messages."""
    takes_numbers: bool = False
    """Whether numbers and booleans in the columns are taken, as JSON writes them."""
    optional: tuple[str, ...] = ()
    """Columns that are read too, after these, where they are there."""
    text: str | None = None
    """The column, if a document is what is in it, as most are: the shortest way to it."""


def wanted(
    text_column: str,
    prompt_column: str | None = None,
    completion_column: str | None = None,
    text_template: str | None = None,
    messages_column: str | None = None,
) -> Wanted:
    """What to read, by the options of these names.

    Raises:
        OptionError: the template is none.
    """
    if messages_column:
        columns = {messages_column: "messages_column"}
        columns |= {completion_column: "completion_column"} if completion_column else {}
        return Wanted(columns, partial(_conversation, [*columns.values()]), are_texts=False, optional=(TOOLS,))
    if text_template:
        template = Template.parse(text_template, completion_column)
        return Wanted(dict.fromkeys(template.columns, "text_template"), template.filled, takes_numbers=True)
    if prompt_column and completion_column:
        columns = {prompt_column: "prompt_column", completion_column: "completion_column"}
        return Wanted(columns, lambda cells, place: _prompted(cells[0], cells[-1]))
    return Wanted({text_column: "text_column"}, lambda cells, place: cells[0], text=text_column)


def has_prompts(options: DataOptions) -> bool:
    """Whether documents have parts that need not count: prompts, or what others say to the assistant."""
    return bool(options.completion_column or options.messages_column)


def masks_prompts(options: DataOptions) -> bool:
    """Whether these parts do not count."""
    return has_prompts(options) and options.completion_only_loss is not False


def check_columns(options: DataOptions) -> None:
    """Make sure that the columns that are named make one kind of document.

    Raises:
        OptionError: they do not, or have no effect.
    """
    named = {name: getattr(options, name) for name in COLUMNS}
    named["text_column"] = None if options.text_column == "text" else options.text_column
    given = [name for name, value in named.items() if value]
    for name in given:
        if others := [other for other in given if other != name and other not in COLUMNS[name]]:
            raise OptionError(
                f"{name} {named[name]!r} and {others[0]} {named[others[0]]!r} cannot be combined: leave one of them out"
            )
    if options.prompt_column and not options.completion_column:
        raise OptionError(
            f"prompt_column {options.prompt_column!r} needs a completion_column, with what follows the prompt"
        )
    if options.completion_column and not (options.prompt_column or options.text_template or options.messages_column):
        raise OptionError(
            f"completion_column {options.completion_column!r} needs a prompt_column, with what comes before it (or, if "
            "these are messages, a messages_column), or a text_template that has both"
        )
    for name in ("messages_column", "prompt_column"):
        if options.completion_column and options.completion_column == getattr(options, name):
            way = "leave completion_column out" if name == "messages_column" else "name the column with what follows it"
            raise OptionError(f"completion_column {options.completion_column!r} is {name} too: {way}")
    if given and given != ["text_column"] and vars(options).get("packing") == "guide":
        raise OptionError(f"packing guide: the guide's rows have one text each: leave {given[0]} out, or packing")


@dataclass(frozen=True)
class Template:
    """A text with columns in braces, which is a prompt up to the column of the completion, if there is one."""

    parts: tuple[tuple[str, str | None], ...]
    """Text, and the column that follows it."""
    completion: str | None

    @classmethod
    def parse(cls, text: str, completion: str | None) -> "Template":
        """Read a template.

        Raises:
            OptionError: its braces are no columns, there are none, or the completion is not one of them.
        """
        shown = f"text_template {text!r}"
        text = re.sub(r"\\[nt\\]", lambda found: ESCAPES[found[0]], text)
        try:
            parsed = list(Formatter().parse(text))
        except ValueError as error:
            raise OptionError(f"{shown}: {error}: a brace that is text is written twice, {{{{ or }}}}") from None
        for _, name, spec, conversion in parsed:
            if name is not None and (not name or spec or conversion):
                inner = f"{name}{'!' if conversion else ''}{conversion or ''}{':' if spec else ''}{spec or ''}"
                raise OptionError(
                    f"{shown}: {{{inner}}} is not a column: give its name alone, such as {{question}}; a brace that is "
                    "text is written twice, {{ or }}"
                )
        found = cls(tuple((literal, name) for literal, name, _, _ in parsed), completion)
        if not found.columns:
            raise OptionError(f"{shown}: there is no column in it, such as {{question}}")
        if completion and [name for _, name in found.parts].count(completion) != 1:
            there = ", ".join(f"{{{name}}}" for name in found.columns)
            raise OptionError(
                f"completion_column {completion!r} has to be once in text_template, whose columns are {there}: what is "
                "before it is the prompt"
            )
        if completion and not found.parts[0][0].strip() and found.parts[0][1] == completion:
            raise OptionError(
                f"{shown} begins with the completion_column {completion!r}: there is no prompt before it: leave "
                "completion_column out, and all of the text counts"
            )
        return found

    @property
    def columns(self) -> list[str]:
        """The names, each once."""
        return list(dict.fromkeys(name for _, name in self.parts if name is not None))

    def filled(self, cells: Sequence[str | None], place: str) -> str | Prompted | None:
        """The document of a row; None if all of its columns are blank, or the completion, or all that is before it."""
        values = dict(zip(self.columns, cells, strict=True))
        if self.completion:
            names = [name for _, name in self.parts]
            at = names.index(self.completion)
            prompt = self._joined(self.parts[:at], values) + self.parts[at][0]
            rest = self._joined((("", self.completion), *self.parts[at + 1 :]), values)
            return Prompted(prompt, rest) if _has_text(prompt) and _has_text(values[self.completion]) else None
        return self._joined(self.parts, values) if any(map(_has_text, values.values())) else None

    def _joined(self, parts: Sequence[tuple[str, str | None]], values: dict[str, str | None]) -> str:
        return "".join(literal + ((values[name] or "") if name is not None else "") for literal, name in parts)


def _prompted(prompt: str | None, completion: str | None) -> Prompted | None:
    return Prompted(prompt, completion) if prompt and completion and prompt.strip() and completion.strip() else None


def _has_text(cell: str | None) -> bool:
    return bool(cell and cell.strip())


def _conversation(options: Sequence[str], cells: Sequence[Any], place: str) -> Conversation | None:
    """The messages of all columns, of which the last one, if there are several, has the completion."""
    *columns, tools = cells
    if any(not cell and not isinstance(cell, str) for cell in columns):
        return None
    for option, cell in zip(options, columns, strict=True):
        if not isinstance(cell, list) or not all(isinstance(message, dict) for message in cell):
            raise DataError(
                f"{place}: {option} contains {type(cell).__name__} {str(cell)[:40]!r}, not a list of messages"
            )
    messages = [_message(message, f"{place}, message {at}") for at, message in enumerate(chain(*columns), 1)]
    prompt = len(columns[0]) if len(columns) > 1 else None
    return Conversation(messages, place, prompt=prompt, tools=_tools(tools, place))


def _message(message: dict[str, Any], place: str) -> dict[str, Any]:
    found: dict[str, Any] = _without_nulls(message)
    if "from" in found and "role" not in found:
        role = found.pop("from")
        found = {"role": OF_SHAREGPT.get(role, role), "content": found.pop("value", None), **found}
    if not isinstance(found.get("role"), str):
        raise DataError(f"{place} has no role: its fields are {', '.join(found) or 'empty'}")
    if found.get("content") is None and not found.keys() - {"role", "content"}:
        raise DataError(f"{place}, of role {found['role']!r}, has no content")
    return found


def _tools(cell: Any, place: str) -> list[dict[str, Any]] | None:
    """What the assistant may call: as JSON too, because Arrow gives each all fields of all of them."""
    found = cell
    if isinstance(cell, str) and cell.strip():
        with suppress(ValueError):
            found = json.loads(cell)
    if not found:
        return None
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in found):
        raise DataError(
            f"{place}: column {TOOLS!r} contains {type(cell).__name__} {str(cell)[:40]!r}, not a list of tools, each a "
            "JSON schema: rename the column if it is something else"
        )
    return [_without_nulls(tool) for tool in found]


def _without_nulls(value: Any) -> Any:
    """A value without the fields that it has not: Arrow gives each all fields of all of them."""
    if isinstance(value, dict):
        return {name: _without_nulls(each) for name, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value
