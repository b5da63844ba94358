"""Options on the command line: the flags of the parser, and options written as flags."""

import argparse
from collections.abc import Iterable, Mapping
from typing import Any, get_origin

from clm_core.errors import OptionError
from clm_core.options.declared import Option, list_options, shown
from clm_core.options.given import Given


def add_flags(parser: argparse.ArgumentParser, cls: type, *, prefix: str = "", group: str | None = None) -> None:
    """Give a parser a flag for each option; what is not given leaves no trace in the parsed namespace."""
    groups: dict[str, Any] = {}
    for option in list_options(cls):
        title = group or option.group
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        flag = f"--{prefix}{option.flag[2:]}"
        name = f"{prefix.removesuffix('-')}.{option.name}" if prefix else option.name
        keywords: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS}
        keywords["help"] = f"{option.help} ({_shown_default(option)})".replace("%", "%%")
        if option.metadata["moved"]:
            keywords["help"] = argparse.SUPPRESS
        if option.kind is bool:
            keywords["action"] = _Switch
        elif get_origin(option.kind) is tuple:
            keywords |= {"nargs": "+", "action": "extend", "metavar": option.metavar}
        else:
            keywords |= {"action": Once, "metavar": option.metavar}
        flags = [short, flag] if (short := option.metadata["short"]) else [flag]
        groups[title].add_argument(*flags, **keywords)


class Once(argparse.Action):
    """Takes one value, and rejects a second, different one, which argparse would silently let win."""

    given: tuple[str, Any] | None = None

    def __call__(self, parser: Any, namespace: Any, values: Any, flag: str | None = None) -> None:
        """Take the value."""
        self.take(str(flag), values)
        setattr(namespace, self.dest, values)

    def take(self, flag: str, value: Any) -> None:
        """Remember the value of a flag.

        Raises:
            OptionError: it was given another value before.
        """
        if self.given and self.given[1] != value:
            ways = [name if isinstance(text, bool) else f"{name} {text}" for name, text in (self.given, (flag, value))]
            raise OptionError(f"{' and '.join(ways)} cannot be combined: give one of them")
        self.given = flag, value


class _Switch(argparse.BooleanOptionalAction, Once):
    def __call__(self, parser: Any, namespace: Any, values: Any, flag: str | None = None) -> None:
        self.take(str(flag), not str(flag).startswith("--no-"))
        super().__call__(parser, namespace, values, flag)


def from_flags(namespace: argparse.Namespace, known: Iterable[str]) -> dict[str, Given]:
    """The options given on the command line."""
    flags = {name: value for name, value in vars(namespace).items() if name in set(known)}
    return {name: Given(value, "--" + name.replace("_", "-").replace(".", "-")) for name, value in flags.items()}


def to_flags(values: Mapping[str, Any], prefix: str = "--") -> list[str]:
    """Options as command-line flags; a mapping has those of the backend it is named after."""
    flags: list[str] = []
    for name, value in values.items():
        flag = f"{prefix}{name.replace('_', '-')}"
        if isinstance(value, Mapping):
            flags += to_flags(value, f"{flag}-")
        elif isinstance(value, bool):
            flags.append(flag if value else f"--no-{flag[2:]}")
        else:
            flags += _with_values(flag, [*map(str, value if isinstance(value, list | tuple) else [value])])
    return flags


def _with_values(flag: str, values: list[str]) -> list[str]:
    """A flag with its values; argparse would take one that begins with a dash for a flag."""
    is_mistaken = any(value.startswith("-") for value in values)
    return [f"{flag}={value}" for value in values] if is_mistaken else [flag, *values]


def _shown_default(option: Option) -> str:
    if option.default is None or option.default == ():
        return "default: none" if "default:" not in option.help else "optional"
    return f"default: {shown(option.default)}"
