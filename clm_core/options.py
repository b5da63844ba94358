"""From a dataclass to flags and a reference, and from flags, files and arguments to a dataclass.

Every value comes as text or as a Python object together with the place where it was given; the type
of the field decides what it means, so that a flag, a YAML key and an argument are read alike.
"""

import argparse
import dataclasses
import inspect
import os
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from clm_core.errors import OptionError

Config = TypeVar("Config")

TRUE, FALSE, NONE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}, {"none", "null", "~", ""}


BREAKS = set("\x85\u2028\u2029")
"""Line breaks of Unicode: PyYAML writes them into a value as they are, and does not read them back."""


@dataclass(frozen=True)
class Given:
    """A value as it was given, and where: a flag, a line of a file, an argument."""

    value: Any
    place: str


Layer = Mapping[str, Given]


@dataclass(frozen=True, kw_only=True)
class Option:
    """What is known of an option, from its field."""

    name: str
    type: Any
    default: Any
    help: str
    group: str
    metadata: Mapping[str, Any]

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def kind(self) -> Any:
        """The type, without the None that it may also be."""
        if isinstance(self.type, types.UnionType):
            return next(kind for kind in get_args(self.type) if kind is not types.NoneType)
        return self.type

    @property
    def optional(self) -> bool:
        """Whether None is a value."""
        return self.kind is not self.type

    @property
    def metavar(self) -> str:
        """What stands for the value in the help."""
        if get_origin(self.kind) is Literal:
            return "{" + ",".join(get_args(self.kind)) + "}"
        return self.metadata.get("metavar") or {int: "INT", float: "FLOAT"}.get(self.kind, "TEXT")


def list_options(cls: type) -> list[Option]:
    """The options of a dataclass, those of the same base class together, in the order of their declaration."""
    hints = typing.get_type_hints(cls)
    found: list[Option] = []
    for base in reversed(cls.__mro__):
        for name in inspect.get_annotations(base):
            if name in hints and name not in {option.name for option in found} and dataclasses.is_dataclass(base):
                field = cls.__dataclass_fields__[name]  # type: ignore[attr-defined]
                found.append(
                    Option(
                        name=name,
                        type=hints[name],
                        default=field.default,
                        help=field.metadata["help"],
                        group=(base.__doc__ or "").split(";")[0].rstrip("."),
                        metadata=field.metadata,
                    )
                )
    return found


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
        if option.kind is bool:
            keywords["action"] = _Switch
        elif get_origin(option.kind) is tuple:
            keywords |= {"nargs": "+", "action": "extend", "metavar": option.metavar}
        else:
            keywords |= {"action": Once, "metavar": option.metavar}
        flags = [short, flag] if (short := option.metadata["short"]) else [flag]
        groups[title].add_argument(*flags, **keywords)


class Once(argparse.Action):
    """Takes one value. Another one beside it would be dropped without a word, so it is refused; the same one is not."""

    given: tuple[str, Any] | None = None

    def __call__(self, parser: Any, namespace: Any, values: Any, flag: str | None = None) -> None:
        """Take the value."""
        self.take(str(flag), values)
        setattr(namespace, self.dest, values)

    def take(self, flag: str, value: Any) -> None:
        """Remember the value of a flag.

        Raises:
            OptionError: it has another one already.
        """
        if self.given and self.given[1] != value:
            ways = [name if isinstance(text, bool) else f"{name} {text}" for name, text in (self.given, (flag, value))]
            raise OptionError(f"{' and '.join(ways)} were both given: keep one of them")
        self.given = flag, value


class _Switch(argparse.BooleanOptionalAction, Once):
    def __call__(self, parser: Any, namespace: Any, values: Any, flag: str | None = None) -> None:
        self.take(str(flag), not str(flag).startswith("--no-"))
        super().__call__(parser, namespace, values, flag)


def from_flags(namespace: argparse.Namespace, known: Iterable[str]) -> dict[str, Given]:
    """The options that stand on the command line."""
    flags = {name: value for name, value in vars(namespace).items() if name in set(known)}
    return {name: Given(value, "--" + name.replace("_", "-").replace(".", "-")) for name, value in flags.items()}


def from_arguments(arguments: Mapping[str, Any]) -> dict[str, Given]:
    """The options of a call from Python; a mapping holds the options of the backend it is named after."""
    given: dict[str, Given] = {}
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            given |= {f"{name}.{key}": Given(item, f"argument {name}[{key!r}]") for key, item in value.items()}
        else:
            given[name] = Given(value, f"argument {name}")
    return given


def from_file(path: Path) -> dict[str, Given]:
    """The options in a flat YAML file; those of a backend stand under its name, and are called `backend.option` here.

    Raises:
        OptionError: the file cannot be read, is not YAML, is not flat, or names a key twice.
    """
    import yaml

    try:
        # BaseLoader leaves every scalar as text: the type of the option decides what it means, not YAML's guess.
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"cannot read configuration file {path}: {error}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise OptionError(f"{path}, line {line}: not YAML: {error.problem}") from None
    except RecursionError:
        raise OptionError(f"{path} is nested too deeply: expected lines of `option: value`") from None
    except yaml.reader.ReaderError as error:
        raise OptionError(f"{path}: not YAML: {error.reason} (character {error.position + 1})") from None
    return {} if root is None else _mapping(root, path)


def build(cls: type[Config], layers: Sequence[Layer]) -> Config:
    """Make a dataclass from layers of given values, of which the last wins.

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


def unknown(name: str, known: Iterable[str], place: str) -> OptionError:
    """The error for an option that does not exist, with the nearest ones that do."""
    from clm_core import hints

    hint = hints.of_option(name, known, as_flag=place.startswith("--"))
    return OptionError(f"unknown option {place if place.startswith('--') else f'{name} ({place})'}{hint}")


def to_yaml(config: Any, sections: Mapping[str, Any]) -> str:
    """A configuration as a file that `from_file` reads back to the same values: what differs from the defaults."""
    import yaml

    content = {**changed(config), **{name: changed(section) for name, section in sections.items()}}
    content = {key: value for key, value in content.items() if value != {}}
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    if set(text) & BREAKS:
        text = yaml.safe_dump(content, sort_keys=False)
    return text


def changed(config: Any) -> dict[str, Any]:
    """The options that differ from their defaults."""
    values = {option.name: (option.default, getattr(config, option.name)) for option in list_options(type(config))}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, (default, value) in values.items()
        if value != default
    }


def to_flags(values: Mapping[str, Any], prefix: str = "--") -> list[str]:
    """Options as they stand on a command line; a mapping has those of the backend it is named after."""
    flags: list[str] = []
    for name, value in values.items():
        flag = f"{prefix}{name.replace('_', '-')}"
        if isinstance(value, Mapping):
            flags += to_flags(value, f"{flag}-")
        elif isinstance(value, bool):
            flags.append(flag if value else f"--no-{flag[2:]}")
        else:
            flags += [flag, *map(str, value if isinstance(value, list | tuple) else [value])]
    return flags


def shown(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shown_default(option: Option) -> str:
    if option.default is None or option.default == ():
        return "default: none" if "default:" not in option.help else "optional"
    return f"default: {shown(option.default)}"


def _mapping(node: Any, path: Path, section: str = "") -> dict[str, Given]:
    import yaml

    if not isinstance(node, yaml.MappingNode):
        raise OptionError(f"{path}, line {node.start_mark.line + 1}: expected `option: value`")
    given: dict[str, Given] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise OptionError(f"{path}, line {key_node.start_mark.line + 1}: expected `option: value`")
        name, place = f"{section}{key_node.value}", f"{path}, line {key_node.start_mark.line + 1}"
        if name in given:
            raise OptionError(f"{place}: {name} is given twice")
        if isinstance(value_node, yaml.MappingNode) and not section:
            part = _mapping(value_node, path, section=f"{name}.")
            if twice := sorted(part.keys() & given.keys()):
                raise OptionError(f"{part[twice[0]].place}: {twice[0]} is given twice")
            given |= part
        else:
            given[name] = Given(_plain(value_node, f"{place}: {name}"), place)
    return given


def _plain(node: Any, place: str) -> Any:
    """A text, or a list of texts."""
    items = [item.value for item in node.value] if node.id == "sequence" else [node.value]
    if not all(isinstance(item, str) for item in items):
        raise OptionError(f"{place} must be a value, or a list of values, and nothing nested")
    return items if node.id == "sequence" else node.value


def _converted(option: Option, given: Given) -> Any:
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
        return _one_of(get_args(option.kind), value)
    if get_origin(option.kind) is tuple:
        items = [value] if isinstance(value, str) else value
        return tuple(_text(os.fspath(item)) for item in items)
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
    return int(value) if isinstance(value, str) and value.strip().lstrip("+-").isdigit() else int(number)


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    number = float(value)
    if number in (float("inf"), float("-inf")):
        raise ValueError
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError
    return value


def _expected(option: Option) -> str:
    if get_origin(option.kind) is Literal:
        return "one of " + ", ".join(get_args(option.kind))
    kinds = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}
    return kinds.get(option.kind, "a list of texts")


def _wrong(option: Option, given: Given, expected: str) -> OptionError:
    return OptionError(f"{option.name} must be {expected}, not {given.value!r} ({given.place})")
