"""Declares options as fields of a frozen dataclass: `option()`, with its help and its check, and `moved()`."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from clm_core.config.values import Check


def option(
    default: Any,
    help: str,
    *,
    check: Check | None = None,
    metavar: str | None = None,
    short: str | None = None,
    refused: Mapping[str, str] | None = None,
    same: Mapping[str, str] | None = None,
    settled: bool = False,
) -> Any:
    """A dataclass field with its help, a check that its values go through, and perhaps a flag of one letter.

    `refused` has the values that other programs have and that are none here, each with the reason; `same` has values
    that mean another one, which the option then has. An option of a backend's own is `settled` if a run that resumes
    has to have the value that it was started with.
    """
    metadata = {"help": help, "check": check, "metavar": metavar, "short": short, "refused": refused or {}}
    return field(default=default, metadata={**metadata, "moved": False, "same": same or {}, "settled": settled})


def moved(group: type, name: str) -> Any:
    """A field of a backend's own options for one that was its own until `group` declared it for all backends.

    It is still taken under the backend's name, as a flag, a key and an argument, but no longer shown; then the options
    of a run have it as the shared one. A backend honours both, for a job made by hand or one side of a comparison.
    """
    shared = group.__dataclass_fields__[name]  # type: ignore[attr-defined]
    return field(default=shared.default, metadata={**shared.metadata, "moved": True})
