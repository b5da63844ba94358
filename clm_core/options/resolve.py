"""Resolves the options of a command: defaults, sample or run, file, flags; and the backend's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from clm_core import checkpoints, options
from clm_core.backend import Backend
from clm_core.config import (
    DataOptions,
    DatasetRepositoryOptions,
    EvaluateConfig,
    EvaluationOptions,
    GenerateConfig,
    HubOptions,
    InspectConfig,
    OptimizationOptions,
    ParityConfig,
    PrepareConfig,
    PreprocessingOptions,
    PublishingOptions,
    PushConfig,
    RunOptions,
    TrainConfig,
)
from clm_core.errors import OptionError
from clm_core.options import Given, Layer
from clm_core.options.effects import check_effects
from clm_core.options.recipes import find_recipe
from clm_core.record import RUN_FILE
from clm_core.registry import Status, get_backend, list_backends

Config = TypeVar("Config")

DATA = ("dataset_name", "train_file", "validation_file", "prepared")
MODEL = ("model_name_or_path", "config_name", "model_type")

PYTHON = "python"
"""The section with the interpreters: `--python-NAME`, or `python: {NAME: PATH}` in a file."""

EMPTY: tuple[Any, ...] = (None, (), [])
"""Values of an argument that count as not given."""

SAMPLE_DATA = {"text_column": Given("answers.text", "the built-in sample")}
SAMPLE_TOKENIZER = {"tokenizer_name": Given("sample", "the built-in sample")}


@dataclass(frozen=True, kw_only=True)
class Request(Generic[Config]):
    """The options of a command, the backend that runs it, and that backend's options."""

    config: Config
    backend: Backend
    backend_options: Any


@dataclass(frozen=True, kw_only=True)
class ParityRequest:
    """The options of a comparison, and the two backends, with the options of each."""

    config: ParityConfig
    backends: tuple[Backend, Backend]
    pythons: dict[str, str]
    """The interpreter of a backend, where it is not this one."""
    options: dict[str, Any]


def training(given: Layer, *, file: str | Path | None, backend: Backend) -> Request[TrainConfig]:
    """The request for a training: on the built-in sample if nothing is named, with the run's options if resumed."""
    layers = _prepared_wins([_read(file, TrainConfig), given])
    resumed = _value(layers, "resume_from_checkpoint")
    base = _resumed(resumed) if resumed else _base(layers, TrainConfig)
    return _request(TrainConfig, [base, *layers], backend)


def evaluation(given: Layer, *, file: str | Path | None, backend: Backend) -> Request[EvaluateConfig]:
    """The request for an evaluation: on the data of the run, if a run is evaluated and no other data is named."""
    layers = _prepared_wins([_read(file, EvaluateConfig), given])
    model = _value(layers, "model_name_or_path")
    run = _recorded(Path(model.value)) if model else {}
    kept = {*_option_names(PreprocessingOptions)} - {"overwrite_cache"}
    if not _names(layers, DATA):
        kept |= {*_option_names(DataOptions), "prepared"}
    base = {name: given for name, given in run.items() if name in kept}
    if not run and not _names(layers, DATA):
        base = SAMPLE_DATA
    return _request(EvaluateConfig, [base, *layers], backend, sections=False)


def generation(given: Layer, *, file: str | Path | None, backend: Backend) -> Request[GenerateConfig]:
    """The request for a generation."""
    return _request(GenerateConfig, [{}, _read(file, GenerateConfig), given], backend, sections=False)


def preparation(given: Layer, *, file: str | Path | None) -> PrepareConfig:
    """The options of a preparation: of the built-in sample, and with its tokenizer, if none are named."""
    # In a file, the output folder and the options for publishing are those of the training.
    of_training = {"output_dir", *_option_names(HubOptions)}
    read = {name: value for name, value in _read(file, PrepareConfig).items() if name not in of_training}
    layers = [read, given]
    if _value(layers, "merge"):
        return _joining(layers)
    data = {} if _names(layers, DATA) else SAMPLE_DATA
    tokenizer = {} if _names(layers, ("tokenizer_name", "model_name_or_path")) else SAMPLE_TOKENIZER
    _check_sections(layers, used=False)
    config = _build(PrepareConfig, [{**data, **tokenizer}, *layers])
    check_effects(config, given)
    return config


def parity(given: Layer, *, file: str | Path | None) -> ParityRequest:
    """The request for a comparison of two backends: on the built-in sample if nothing is named."""
    # The output folder in a file is that of the training.
    read = {name: value for name, value in _read(file, ParityConfig).items() if name != "output_dir"}
    pythons = {name: str(found.value) for name, found in _sections({**read, **given}).get(PYTHON, {}).items()}
    layers = _prepared_wins([_without(read, PYTHON), _without(given, PYTHON)])
    config = _build(ParityConfig, [_base(layers, ParityConfig), *layers])
    check_effects(config, given)
    places = {name: found.place for layer in layers for name, found in layer.items()}
    if apart := [place for name, place in places.items() if name.partition(".")[2] in _apart()]:
        raise OptionError(
            f"{apart[0]}: this option is for one backend only, but both sides of a comparison need the same options"
        )
    backends = _two(config.backends, pythons)
    for backend in backends:
        for layer in layers:
            _refuse_unsupported(config, layer, backend)
    _check_sections(layers, *backends, used=True)
    own: dict[str, Any] = {
        backend.name: options.build(backend.options, [_sections(layer).get(backend.name, {}) for layer in layers])
        for backend in backends
    }
    return ParityRequest(config=config, backends=backends, pythons=pythons, options=own)


def parity_side(backend: Backend, *, file: Path) -> Request[ParityConfig]:
    """The request for one side of a comparison, from the file that `clm parity` wrote for both sides.

    Only this side's backend is looked at: the other one need not be installed in this environment.
    """
    layer, _ = _prepared_wins([_read(file, ParityConfig), {}])
    config = _build(ParityConfig, [layer])
    _refuse_unsupported(config, layer, backend)
    own: Any = options.build(backend.options, [_sections(layer).get(backend.name, {})])
    return Request(config=config, backend=backend, backend_options=own)


def _two(names: Sequence[str], pythons: Mapping[str, str]) -> tuple[Backend, Backend]:
    """The backends of these names, or the only two that can be compared."""
    if not names:
        names = [status.name for status in list_backends() if status.name in pythons or _is_comparable(status)]
    if len(set(names)) != 2 or len(names) != 2:
        raise OptionError(
            f"parity needs exactly two backends, got: {', '.join(names) or 'none'}; name them, as --backends A B"
        )
    one, other = (get_backend(name, elsewhere=name in pythons) for name in names)
    for backend in (one, other):
        if backend.incomparable:
            raise OptionError(f"backend {backend.name} cannot be compared: {backend.incomparable}")
    for name in pythons:
        if name not in names:
            raise OptionError(f"--python-{name}: {name} is not one of the backends compared, {' and '.join(names)}")
    return one, other


def _is_comparable(status: Status) -> bool:
    return status.backend is not None and not status.backend.incomparable and not status.problem


def _base(layers: Sequence[Layer], cls: type) -> Layer:
    """The options if no data is named, or neither data nor a model: those of the built-in sample."""
    if _names(layers, DATA):
        return {}
    return SAMPLE_DATA if _names(layers, MODEL) else {**_read("sample", cls), **SAMPLE_DATA}


def _joining(layers: list[Layer]) -> PrepareConfig:
    """The options that merging shards uses; the others were decided when the shards were prepared."""
    used = {"merge", "output_dir", "overwrite_cache", "block_size"}
    used |= {*_option_names(DatasetRepositoryOptions), *_option_names(PublishingOptions)}
    if clash := [value.place for name, value in layers[-1].items() if name not in used and value.value not in EMPTY]:
        raise OptionError(f"{', '.join(clash)}: merge takes shards that are prepared already, leave it out")
    return _build(PrepareConfig, [{name: value for name, value in layer.items() if name in used} for layer in layers])


def inspection(given: Layer) -> InspectConfig:
    """What to show of prepared data."""
    config = options.build(InspectConfig, [given])
    check_effects(config, given)
    return config


def publication(given: Layer) -> PushConfig:
    """The options of an upload."""
    return options.build(PushConfig, [given])


def _read(file: str | Path | None, cls: type) -> Layer:
    """The options of a recipe or file, without those of a training that the command does not have."""
    if file is None:
        return {}
    mine, known = _option_names(cls), _option_names(TrainConfig)
    layer = options.from_file(find_recipe(file))
    return {name: given for name, given in layer.items() if name in mine or name not in known}


def _prepared_wins(layers: list[Layer]) -> list[Layer]:
    """Prepared data replaces the data in a file, and cannot be combined with given options for data."""
    file, given = layers
    if not _value(layers, "prepared"):
        return layers
    unused = {*_option_names(DataOptions), *_option_names(PreprocessingOptions)} - {"seed", "block_size"}
    if clash := [value.place for name, value in given.items() if name in unused and value.value not in EMPTY]:
        raise OptionError(f"{', '.join(clash)}: the data that prepared names is prepared already, leave it out")
    return [{name: value for name, value in file.items() if name not in unused}, given]


def _build(cls: type[Config], layers: Sequence[Layer]) -> Config:
    return options.build(cls, [_own(layer) for layer in layers])


def _request(cls: type[Config], layers: Sequence[Layer], backend: Backend, *, sections: bool = True) -> Request[Config]:
    """Build the options; the first layer was not given by the person, so it is never rejected."""
    _check_sections(layers, backend, used=sections)
    layers = [_of_backend(layer, backend, cls) for layer in layers]
    config = _build(cls, layers)
    check_effects(config, layers[-1])
    for layer in layers[1:]:
        _refuse_unsupported(config, layer, backend)
    mine = [_sections(layer).get(backend.name, {}) for layer in layers] if sections else []
    return Request(config=config, backend=backend, backend_options=options.build(backend.options, mine))


def _of_backend(layer: Layer, backend: Backend, cls: type) -> Layer:
    """What a layer says for one backend: options under its name override the shared ones."""
    apart = {f"{backend.name}.{name}": name for name in _apart()}
    found = {apart[name]: given for name, given in layer.items() if name in apart}
    known = _option_names(cls)
    return {
        **{name: given for name, given in layer.items() if name not in apart},
        **{name: given for name, given in found.items() if name in known},
    }


def _apart() -> set[str]:
    """The shared options that may be set for one backend: how it trains and scores, not on what."""
    of_run = {"output_dir", "overwrite_output_dir", "resume_from_checkpoint"}
    groups = (OptimizationOptions, EvaluationOptions, RunOptions)
    return {name for group in groups for name in _option_names(group)} - of_run


def _own(layer: Layer) -> dict[str, Given]:
    return {name: given for name, given in layer.items() if "." not in name}


def _names(layers: Sequence[Layer], names: Sequence[str]) -> bool:
    return any(_value(layers, name) for name in names)


def _value(layers: Sequence[Layer], name: str) -> Given | None:
    """The value that was given last, unless it is empty."""
    found = next((layer[name] for layer in reversed(layers) if name in layer), None)
    return found if found and found.value not in EMPTY else None


def _refuse_unsupported(config: Any, layer: Layer, backend: Backend) -> None:
    defaults = {option.name: option.default for option in options.list_options(type(config))}
    for name, given in _own(layer).items():
        if name in backend.unsupported and getattr(config, name) != defaults[name]:
            reason = backend.unsupported[name]
            raise OptionError(f"backend {backend.name} does not support {name}: {reason} ({given.place})")


def _check_sections(layers: Sequence[Layer], *backends: Backend, used: bool) -> None:
    """Make sure that options of backends exist; a file may contain unused ones, a call may not."""
    classes = {status.name: status.backend.options for status in list_backends() if status.backend}
    classes |= {backend.name: backend.options for backend in backends}
    names = [backend.name for backend in backends]
    for layer in layers:
        for section, values in _sections(layer).items():
            place = next(iter(values.values())).place
            if section not in classes:
                raise options.unknown(section, [*_option_names(TrainConfig), *classes], place)
            apart = {name: given for name, given in values.items() if name in _apart()}
            options.build(TrainConfig, [apart])
            options.build(classes[section], [{name: values[name] for name in values.keys() - apart.keys()}])
            if layer is layers[-1] and not (used and section in names):
                where = f"this run is on {' and '.join(names)}" if used else "only train takes such options"
                raise OptionError(f"{place} is an option of backend {section}, and {where}")


def _sections(layer: Layer) -> dict[str, dict[str, Given]]:
    sections: dict[str, dict[str, Given]] = {}
    for name, given in layer.items():
        section, dot, option = name.partition(".")
        if dot:
            sections.setdefault(section, {})[option] = given
    return sections


def _without(layer: Layer, section: str) -> Layer:
    return {name: given for name, given in layer.items() if not name.startswith(f"{section}.")}


def _option_names(cls: type) -> list[str]:
    return [option.name for option in options.list_options(cls)]


def _resumed(given: Given) -> dict[str, Given]:
    """The options of the checkpoint's run, with its folder as the output folder."""
    run = checkpoints.find(Path(given.value)).parent
    return {**_recorded(run), "output_dir": Given(str(run), given.place)}


def _recorded(run: Path) -> dict[str, Given]:
    """The options of a run, if the folder is one."""
    return options.from_file(run / RUN_FILE) if (run / RUN_FILE).is_file() else {}
