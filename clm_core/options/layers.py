"""The options of a command by where they come from: clm or a run, a file, and what was given; the later override."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from clm_core.options.given import NONE, Given, Layer

DATA = ("dataset_name", "train_file", "validation_file", "prepared")
"""The options that say where the text is."""

INSTEAD: tuple[Mapping[str, Collection[str]], ...] = (
    {"warmup_steps": (), "warmup_ratio": ()},
    {"max_steps": (), "max_trained_tokens": ()},
    {"freeze": (), "train_only": ()},
)
"""Options that say the same thing in two ways: one that is given replaces the other in a file, or of a run."""

EMPTY: tuple[Any, ...] = (None, (), [])
"""Values of an argument that count as not given."""


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Options by where they come from; each layer overrides those before it."""

    base: Layer = field(default_factory=dict)
    """From the built-in sample, or the run that is resumed or evaluated. Nobody gave them now: none is rejected."""
    file: Layer
    """From a recipe or file, which may serve other commands and backends as well."""
    given: Layer
    """From flags or arguments. Each has to have an effect."""

    @property
    def asked_for(self) -> tuple[Layer, Layer]:
        """The layers of the person."""
        return self.file, self.given

    @property
    def all(self) -> tuple[Layer, Layer, Layer]:
        """The layers in their order."""
        return self.base, self.file, self.given

    def value(self, name: str) -> Given | None:
        """The value that counts, unless it is empty."""
        found = next((layer[name] for layer in reversed(self.all) if name in layer), None)
        return found if found and not _is_empty(found.value) else None

    def has_one_of(self, names: Iterable[str]) -> bool:
        """Whether one of these options has a value."""
        return any(self.value(name) for name in names)

    def without_others(self, names: Mapping[str, Collection[str]]) -> "Layers":
        """Of options that exclude each other, those of the layer that counts: `names` has what each goes with."""
        given = {name for name in names if name in self.given and not _is_empty(self.given[name].value)}
        later = given | {name for name in names if name in self.file and not _is_empty(self.file[name].value)}

        def kept(layer: Layer, later: set[str]) -> Layer:
            allowed = {name for name in names if all(name == other or name in names[other] for other in later)}
            return without(layer, names.keys() - allowed)

        return Layers(base=kept(self.base, later), file=kept(self.file, given), given=self.given)

    def each(self, change: Callable[[Layer], Layer]) -> "Layers":
        """All layers, changed."""
        return Layers(base=change(self.base), file=change(self.file), given=change(self.given))


def own(layer: Layer) -> Layer:
    """The options of a layer that are for every backend."""
    return {name: given for name, given in layer.items() if "." not in name}


def sections(layer: Layer) -> dict[str, dict[str, Given]]:
    """The other options of a layer, by the name that they stand under: that of a backend."""
    found: dict[str, dict[str, Given]] = {}
    for name, given in layer.items():
        section, dot, option = name.partition(".")
        if dot:
            found.setdefault(section, {})[option] = given
    return found


def only(layer: Layer, names: Iterable[str]) -> Layer:
    """The options of these names."""
    wanted = set(names)
    return {name: given for name, given in layer.items() if name in wanted}


def without(layer: Layer, names: Iterable[str]) -> Layer:
    """The options of other names."""
    unwanted = set(names)
    return {name: given for name, given in layer.items() if name not in unwanted}


def _is_empty(value: Any) -> bool:
    """Whether a value is none, also as the text that says so."""
    return value in EMPTY or (isinstance(value, str) and value.lower() in NONE)
