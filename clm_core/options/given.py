"""Values as given, with their place, converted to the type of their option.

A flag, a YAML key and an argument are read alike: a text or a Python object, with the place where it was given.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin

from clm_core.config import TrainConfig
from clm_core.errors import OptionError
from clm_core.options import hints
from clm_core.options.declared import Option, list_options


@dataclass(frozen=True)
class Given:
    """A value as it was given, and where: a flag, a line of a file, an argument."""

    value: Any
    place: str


Layer = Mapping[str, Given]


Config = TypeVar("Config")


PYTHON = "python"
"""The section with the interpreters: `--python-NAME`, or `python: {NAME: PATH}` in a file."""

PAIRS = "KEY=VALUE,..."
"""The metavar of options that take pairs."""

TRUE, FALSE, NONE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}, {"none", "null", "~", ""}


def from_arguments(arguments: Mapping[str, Any]) -> dict[str, Given]:
    """The options of a call from Python; a mapping has the options of the backend it is named after.

    That of an option which is written `KEY=VALUE,...` may be a mapping, too.
    """
    given: dict[str, Given] = {}
    for name, value in arguments.items():
        if isinstance(value, Mapping) and name in written_as_pairs():
            given[name] = Given(as_pairs(value), f"argument {name}")
        elif isinstance(value, Mapping) and is_section(name, value):
            given |= {f"{name}.{key}": Given(item, f"argument {name}[{key!r}]") for key, item in value.items()}
        else:
            given[name] = Given(value, f"argument {name}")
    return given


def is_section(name: str, values: Mapping[str, Any]) -> bool:
    """Whether a mapping has options of a backend, or interpreters: an empty one says so by its name alone."""
    from clm_core.registry import list_backends

    return bool(values) or name == PYTHON or name in [status.name for status in list_backends()]


@cache
def written_as_pairs() -> frozenset[str]:
    """The options whose value is `KEY=VALUE,...`."""
    return frozenset(option.name for option in list_options(TrainConfig) if option.metavar == PAIRS)


def as_pairs(values: Mapping[str, Any]) -> str:
    """A mapping as it is written on the command line."""
    return ",".join(f"{key}={value}" for key, value in values.items())


def build(cls: type[Config], layers: Sequence[Layer]) -> Config:
    """Build a dataclass from layers of given values; later ones override earlier ones.

    Raises:
        OptionError: an option is unknown, or its value is not of its type or not in its range.
    """
    options = {option.name: option for option in list_options(cls)}
    values = {}
    for layer in layers:
        for name, given in layer.items():
            if name not in options:
                raise unknown(name, options, given.place)
            values[name] = _converted(options[name], given)
    return cls(**values)


def unknown(name: str, known: Iterable[str], place: str, *, otherwise: str = "") -> OptionError:
    """The error for an option that does not exist, with the nearest ones that do; `otherwise` ends it without any."""
    is_flag = place.startswith("-")
    hint = hints.of_option(name, known, as_flag=is_flag) or otherwise
    return OptionError(f"unknown option {place if is_flag else f'{name} ({place})'}{hint}")


def _converted(option: Option, given: Given) -> Any:
    if why := option.metadata["refused"].get(str(given.value)):
        raise OptionError(f"{option.name} {given.value}: {why} ({given.place})")
    try:
        value = _value(option, given.value)
    except (TypeError, ValueError, OverflowError):
        raise _wrong(option, given, _expected(option)) from None
    check = option.metadata["check"]
    if value is not None and check and (expected := check(value)):
        raise _wrong(option, given, expected)
    return value


def _value(option: Option, value: Any) -> Any:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if option.optional and (value is None or (isinstance(value, str) and value.lower() in NONE)):
        return None
    if get_origin(option.kind) is Literal:
        return option.metadata["same"].get(value, _one_of(get_args(option.kind), value))
    if get_origin(option.kind) is tuple:
        items = [value] if isinstance(value, str) else value
        return tuple(_text(os.fspath(item)) for item in items)
    if option.kind is str and type(value) in (int, float) and option.metadata["check"]:
        value = str(value)  # From Python; whether it is one of the texts that the option takes, its check says.
    return {bool: _truth, int: _whole, float: _number, str: _text}[option.kind](value)


def _one_of(choices: Sequence[str], value: Any) -> str:
    if value not in choices:
        raise ValueError
    return str(value)


def _truth(value: Any) -> bool:
    text = str(value).lower()
    if text not in TRUE | FALSE:
        raise ValueError
    return text in TRUE


def _whole(value: Any) -> int:
    number = _number(value)
    if number != int(number):
        raise ValueError
    # Digits are not read through a float, which would change a number above 2**53.
    return int(value) if isinstance(value, str) and value.strip().lstrip("+-").isdigit() else int(number)


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    number = float(value)
    if number in (float("inf"), float("-inf")):
        raise ValueError
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:  # No file and no field has such a character.
        raise TypeError
    return value


def _expected(option: Option) -> str:
    if get_origin(option.kind) is Literal:
        return "one of " + ", ".join(get_args(option.kind))
    if option.metavar == PAIRS:
        return f"{PAIRS} as one text, or a mapping"
    kinds = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}
    return kinds.get(option.kind, "a list of texts")


def _wrong(option: Option, given: Given, expected: str) -> OptionError:
    return OptionError(f"{option.name} must be {expected}, not {given.value!r} ({given.place})")
