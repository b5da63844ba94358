"""The columns that are taken by themselves: where no option names one, and the data has none called `text`."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

from clm_core.config import COLUMNS, DataOptions
from clm_core.data.columns import NoColumnError
from clm_core.errors import DataError

BY_THEMSELVES: tuple[dict[str, Any], ...] = (
    {"messages_column": "messages"},
    {"prompt_column": "prompt", "completion_column": "completion"},
    {"messages_column": "prompt", "completion_column": "completion"},
)
"""The options for data that has these columns, as other programs have them; the first that fit are taken."""


def take(options: DataOptions, look: Callable[[DataOptions], Any]) -> dict[str, Any]:
    """The options for the columns that are taken by themselves; `look` reads a row as options say.

    Raises:
        DataError: the data cannot be read, or has no column that is named or can be taken.
    """
    defaults = {field.name: field.default for field in fields(DataOptions)}
    if any(getattr(options, name) != defaults[name] for name in COLUMNS) or vars(options).get("packing") == "guide":
        return {}
    try:
        look(options)
    except NoColumnError:
        for columns in BY_THEMSELVES:
            with suppress(DataError):  # What is in them is something else: the first error says what there is.
                look(replace(options, **columns))
                return columns
        raise
    return {}


def said(columns: Mapping[str, Any]) -> str:
    """What is said of columns that are taken."""
    flags = " ".join(f"--{option.replace('_', '-')} {column}" for option, column in columns.items())
    return f"no column of the data is called text: reading it with {flags}"
