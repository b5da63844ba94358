"""Where an adapter has its tensors: the layers that it names, found in a model, or an error that says what there is."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from clm_core.backend import Model
from clm_core.backend.adapter import CONFIG, LORA_A, LORA_B, Adapter
from clm_core.config import ALL_LINEAR
from clm_core.errors import ClmError, ModelError, OptionError, did_you_mean, shown_names, similar

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Placement:
    """Where an adapter has its tensors in a model."""

    targets: tuple[str, ...]
    """The dense layers that get the two matrices, by their names in PyTorch."""
    whole: tuple[str, ...]
    """The modules that are trained whole."""
    shapes: dict[str, tuple[int, ...]]
    """Every tensor of the adapter, by its name."""


def place(
    model: Model,
    linear: Mapping[str, tuple[int, int]],
    parameters: Shapes,
    *,
    output: str | None,
    tied: Collection[str] = (),
) -> Placement:
    """Find in a model what its adapter names.

    `linear` has the sizes, (in, out), of each dense layer, Conv1D too, by its module's name in PyTorch; `parameters`
    has the shape of each parameter. `output` is the output layer's module, which `all-linear` leaves out. `tied` are
    the modules that share their weight with another, such as the embeddings and the output layer of a GPT-2: an adapter
    that had one of them could not be merged.

    Raises:
        OptionError: a new adapter names what there is not, or what it cannot be for.
        ModelError: an adapter that was read does so: it is one of another model.
    """
    adapter = model.adapter
    assert adapter is not None
    whole = _whole(adapter, parameters, tied)
    inside = tuple(f"{module}." for module in whole)
    open_to_it = {name: sizes for name, sizes in linear.items() if name not in whole and not name.startswith(inside)}
    if adapter.target_modules == (ALL_LINEAR,):
        targets = [name for name in open_to_it if name != output and name not in tied]
    else:
        _check_each(adapter, linear, whole, parameters, tied, model.architecture.model_type)
        targets = [name for name in open_to_it if adapter.is_target(name)]
    if not targets:
        raise _wrong(adapter, "target_modules", " ".join(adapter.target_modules), "there is no dense layer left for it")
    shapes: dict[str, tuple[int, ...]] = {}
    for name in targets:
        ins, outs = linear[name]
        shapes |= {f"{name}{LORA_A}": (adapter.r, ins), f"{name}{LORA_B}": (outs, adapter.r)}
    shapes |= {name: shape for name, shape in parameters.items() if name.startswith(inside)} if inside else {}
    return Placement(targets=tuple(targets), whole=whole, shapes=shapes)


def _whole(adapter: Adapter, parameters: Shapes, tied: Collection[str]) -> tuple[str, ...]:
    """The modules that are trained whole, each of which has a weight of its own and is in no other."""
    modules = _modules(parameters, tied)
    for name in adapter.modules_to_save:
        matched = [module for module in modules if module.endswith(name)]
        if not matched:
            why = f"there is no such module{_near(name, modules) or f'; there are {shown_names(_ends(modules))}'}"
            raise _wrong(adapter, "modules_to_save", name, why)
        if shared := [each for each in tied if any(_is_in(each, module) for module in matched)]:
            raise _wrong(adapter, "modules_to_save", name, _shares(adapter, shared[0], tied))
    found = tuple(module for module in modules if adapter.modules_to_save and adapter.saves_whole(module))
    for module in found:
        if around := [other for other in found if other != module and _is_in(module, other)]:
            why = f"{module} is in {around[0]}, and both names end so: give more of the name"
            raise _wrong(adapter, "modules_to_save", " ".join(adapter.modules_to_save), why)
    return found


def _check_each(
    adapter: Adapter,
    linear: Mapping[str, tuple[int, int]],
    whole: Collection[str],
    parameters: Shapes,
    tied: Collection[str],
    kind: str,
) -> None:
    """Make sure that each name is that of a layer which an adapter can be for."""
    for name in adapter.target_modules:
        matched = [each for each in (*linear, *tied) if each == name or each.endswith(f".{name}")]
        if shared := [each for each in matched if each in tied]:
            raise _wrong(adapter, "target_modules", name, _shares(adapter, shared[0], tied))
        if matched and all(any(_is_in(each, module) for module in whole) for each in matched):
            option = "modules_to_save" if adapter.folder else "lora_modules_to_save"
            saved = f"{option} {' '.join(adapter.modules_to_save)}"
            why = f"{matched[0]} is trained whole, by {saved}: leave it out there, or name other layers here"
            raise _wrong(adapter, "target_modules", name, why)
        if matched:
            continue
        ends = _ends(each for each in linear if each not in tied)
        why = f"a {kind} has no dense layer of this name; it has {', '.join(ends)}{_near(name, ends)}"
        if any(each == name or each.endswith(f".{name}") for each in _modules(parameters, ())):
            why = f"it is no dense layer, as {', '.join(ends)} are; --lora-modules-to-save trains other modules"
        raise _wrong(adapter, "target_modules", name, why)


def _modules(parameters: Shapes, tied: Collection[str]) -> list[str]:
    """All modules that have parameters, in the order of the model."""
    found: dict[str, None] = {}
    for name in parameters:
        parts = name.split(".")
        found |= dict.fromkeys(".".join(parts[:end]) for end in range(1, len(parts)))
    return [*(found | dict.fromkeys(tied))]


def _is_in(module: str, other: str) -> bool:
    return module == other or module.startswith(f"{other}.")


def _shares(adapter: Adapter, module: str, tied: Collection[str]) -> str:
    others = " and ".join(each for each in tied if each != module) or "another module"
    way = "" if adapter.folder else ": leave it out; a training without lora_r can change both"
    return f"{module} shares its weight with {others}, so that an adapter cannot change it alone{way}"


def _ends(modules: Iterable[str]) -> list[str]:
    """What the names end with, each once, but no numbers."""
    return [end for end in dict.fromkeys(each.rpartition(".")[2] for each in modules) if not end.isdigit()]


def _near(name: str, known: Iterable[str]) -> str:
    return did_you_mean(*similar(name.rpartition(".")[2], _ends(known)))


def _wrong(adapter: Adapter, field: str, name: str, why: str) -> ClmError:
    if adapter.folder is None:
        return OptionError(f"lora_{field} {name}: {why}")
    return ModelError(f"{Path(adapter.folder) / CONFIG}: {field} {name}: {why}: is {adapter.base} its model?")
