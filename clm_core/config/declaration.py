"""`option()`: declares an option as a field of a frozen dataclass, with its help and its check."""

from dataclasses import field
from typing import Any

from clm_core.config.values import Check


def option(
    default: Any, help: str, *, check: Check | None = None, metavar: str | None = None, short: str | None = None
) -> Any:
    """A dataclass field with its help, a check that its values go through, and perhaps a flag of one letter."""
    return field(default=default, metadata={"help": help, "check": check, "metavar": metavar, "short": short})
