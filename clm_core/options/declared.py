"""Options, read from the fields that declare them."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option, as its field declares it."""

    name: str
    type: Any
    default: Any
    help: str
    group: str
    """The title of its group in the help: what the docstring of its base class says before a semicolon."""
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
    def choices(self) -> tuple[str, ...]:
        """The values to choose from; empty if there is no such list."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def metavar(self) -> str:
        """The placeholder for the value in the help."""
        if self.choices:
            return "{" + ",".join(self.choices) + "}"
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


def shown(value: Any) -> str:
    """A value as written on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):  # A file has lists.
        return " ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def changed(config: Any, *, every: bool = False) -> dict[str, Any]:
    """The options that differ from their defaults; or `every` one."""
    values = {option.name: (option.default, getattr(config, option.name)) for option in list_options(type(config))}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, (default, value) in values.items()
        if every or value != default
    }
