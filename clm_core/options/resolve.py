"""Resolves the options of a command: defaults, sample or run, file, flags; and the backend's own."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from clm_core import options
from clm_core.backend import Backend
from clm_core.config import (
    COLUMNS,
    SAMPLE,
    DataOptions,
    DatasetRepositoryOptions,
    EvaluateConfig,
    EvaluationOptions,
    GenerateConfig,
    HubOptions,
    InspectConfig,
    MergeConfig,
    OptimizationOptions,
    ParityConfig,
    PrepareConfig,
    PreprocessingOptions,
    PublishingOptions,
    PushConfig,
    RunOptions,
    TrainConfig,
)
from clm_core.errors import OptionError, did_you_mean, similar
from clm_core.options import Given, Layer
from clm_core.options.effects import check_effects
from clm_core.options.given import PYTHON
from clm_core.options.layers import DATA, EMPTY, INSTEAD, Layers, only, own, sections, without
from clm_core.options.recipes import find_recipe
from clm_core.options.recorded import of_resumed, of_run
from clm_core.registry import Status, get_backend, list_backends

Config = TypeVar("Config")

AUTO = "auto"
"""The value of `resume_from_checkpoint` that resumes the run in output_dir if there is one, and starts it if not."""

MODEL = ("model_name_or_path", "config_name", "model_type")

NOT_DROPPED = {"dtype": "--dtype float32", "gradient_checkpointing": "--no-gradient-checkpointing"}
"""Options of a run that a backend without them does not resume in silence, and how to resume without them."""

SAMPLE_DATA = {"text_column": Given("answers.text", "the built-in sample")}
SAMPLE_TOKENIZER = {"tokenizer_name": Given(SAMPLE, "the built-in sample")}


@dataclass(frozen=True, kw_only=True)
class Request(Generic[Config]):
    """The options of a command, the backend that runs it, and that backend's options."""

    config: Config
    backend: Backend
    backend_options: Any
    since: float | None = field(default_factory=time.time, compare=False)
    """When the command began, in seconds since the epoch; None if another process began it."""


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
    layers = _prepared_wins(Layers(file=_read(file, TrainConfig), given=given))
    resumed = layers.value("resume_from_checkpoint")
    named = resumed and resumed.value != AUTO
    if resumed and named and similar(str(resumed.value).lower(), [AUTO]) and not Path(resumed.value).exists():
        raise OptionError(f"{resumed.place}: there is no folder {resumed.value}{did_you_mean(AUTO)}")
    base = of_resumed(resumed, layers) if resumed and named else _base(layers, TrainConfig)
    return _request(TrainConfig, replace(layers, base=base), backend)


def evaluation(given: Layer, *, file: str | Path | None, backend: Backend) -> Request[EvaluateConfig]:
    """The request for an evaluation: on the data of the run, if a run is evaluated and no other data is named."""
    layers = _prepared_wins(Layers(file=_read(file, EvaluateConfig), given=given))
    model = layers.value("model_name_or_path")
    run = of_run(Path(model.value)) if model else {}
    kept = {*_option_names(PreprocessingOptions)} - {"overwrite_cache"}
    if not layers.has_one_of(DATA):
        kept |= {*_option_names(DataOptions), "prepared"}
    base = only(run, kept)
    if not run and not layers.has_one_of(DATA):
        base = SAMPLE_DATA
    return _request(EvaluateConfig, replace(layers, base=base), backend, with_own=False)


def generation(given: Layer, *, file: str | Path | None, backend: Backend) -> Request[GenerateConfig]:
    """The request for a generation."""
    return _request(GenerateConfig, Layers(file=_read(file, GenerateConfig), given=given), backend, with_own=False)


def preparation(given: Layer, *, file: str | Path | None) -> PrepareConfig:
    """The options of a preparation: of the built-in sample, and with its tokenizer, if none are named."""
    # In a file, the output folder and the options for publishing are those of the training.
    of_training = {"output_dir", *_option_names(HubOptions)}
    layers = Layers(file=without(_read(file, PrepareConfig), of_training), given=given)
    if layers.value("merge"):
        return _joining(layers)
    data = {} if layers.has_one_of(DATA) else SAMPLE_DATA
    tokenizer = {} if layers.has_one_of(("tokenizer_name", "model_name_or_path")) else SAMPLE_TOKENIZER
    _check_sections(layers, used=False)
    config = _build(PrepareConfig, replace(layers, base={**data, **tokenizer}))
    check_effects(config, given)
    return config


def parity(given: Layer, *, file: str | Path | None) -> ParityRequest:
    """The request for a comparison of two backends: on the built-in sample if nothing is named."""
    # The output folder in a file is that of the training.
    read = Layers(file=without(_read(file, ParityConfig), ["output_dir"]), given=given)
    interpreters = {name: found for layer in read.all for name, found in sections(layer).get(PYTHON, {}).items()}
    pythons = {name: str(found.value) for name, found in interpreters.items()}
    layers = _prepared_wins(read.each(lambda layer: without(layer, [f"{PYTHON}.{name}" for name in pythons])))
    config = _build(ParityConfig, replace(layers, base=_base(layers, ParityConfig)))
    check_effects(config, given)
    places = {name: found.place for layer in layers.asked_for for name, found in layer.items()}
    if apart := [places[name] for name in places if name.partition(".")[2] in _apart() and name not in _moved()]:
        raise OptionError(
            f"{apart[0]}: this option is for one backend only, but both sides of a comparison need the same options"
        )
    backends = _two(config.backends, pythons)
    for backend in backends:
        for layer in layers.asked_for:
            _refuse_unsupported(config, layer, backend)
    _check_sections(layers, *backends, used=True)
    return ParityRequest(
        config=config,
        backends=backends,
        pythons=pythons,
        options={backend.name: _own_options(layers, backend) for backend in backends},
    )


def parity_side(backend: Backend, *, file: Path) -> Request[ParityConfig]:
    """The request for one side of a comparison, from the file that `clm parity` wrote for both sides.

    Only this side's backend is looked at: the other one need not be installed in this environment.
    """
    layers = _prepared_wins(Layers(file=_read(file, ParityConfig), given={}))
    config = _build(ParityConfig, layers)
    _refuse_unsupported(config, layers.file, backend)
    return Request(config=config, backend=backend, backend_options=_own_options(layers, backend))


def inspection(given: Layer) -> InspectConfig:
    """What to show of prepared data."""
    config = options.build(InspectConfig, [given])
    check_effects(config, given)
    return config


def merging(given: Layer) -> MergeConfig:
    """The options of a merge."""
    return options.build(MergeConfig, [given])


def publication(given: Layer) -> PushConfig:
    """The options of an upload."""
    return options.build(PushConfig, [given])


def _two(names: Sequence[str], pythons: Mapping[str, str]) -> tuple[Backend, Backend]:
    """The backends of these names, or the two that come first, or the only two that can be compared."""
    if not names:
        ready = [status for status in list_backends() if status.name in pythons or _is_comparable(status)]
        first = [status.name for status in ready if status.name in pythons or _comes_first(status)]
        names = first if len(first) == 2 else [status.name for status in ready]
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


def _comes_first(status: Status) -> bool:
    return status.backend is not None and status.backend.comes_first


def _base(layers: Layers, cls: type) -> Layer:
    """The options if no data is named, or neither data nor a model: those of the built-in sample."""
    if layers.has_one_of(DATA):
        return {}
    return SAMPLE_DATA if layers.has_one_of(MODEL) else {**_read("sample", cls), **SAMPLE_DATA}


def _joining(layers: Layers) -> PrepareConfig:
    """The options that merging shards uses; the others were decided when the shards were prepared."""
    used = {"merge", "output_dir", "overwrite_cache", "block_size"}
    used |= {*_option_names(DatasetRepositoryOptions), *_option_names(PublishingOptions)}
    if clash := [value.place for value in without(layers.given, used).values() if value.value not in EMPTY]:
        raise OptionError(f"{', '.join(clash)}: merge takes shards that are prepared already, leave it out")
    return _build(PrepareConfig, layers.each(lambda layer: only(layer, used)))


def _read(file: str | Path | None, cls: type) -> Layer:
    """The options of a recipe or file, without those of a training that the command does not have."""
    if file is None:
        return {}
    mine, known = _option_names(cls), _option_names(TrainConfig)
    layer = options.from_file(find_recipe(file))
    return without(layer, {*known} - {*mine})


def _prepared_wins(layers: Layers) -> Layers:
    """Prepared data replaces the data in a file, and cannot be combined with given options for data."""
    if not layers.value("prepared"):
        return layers
    unused = {*_option_names(DataOptions), *_option_names(PreprocessingOptions)} - {"seed", "block_size"}
    if clash := [value.place for value in only(layers.given, unused).values() if value.value not in EMPTY]:
        raise OptionError(f"{', '.join(clash)}: the data that prepared names is prepared already, leave it out")
    return replace(layers, file=without(layers.file, unused))


def _build(cls: type[Config], layers: Layers) -> Config:
    for names in (COLUMNS, *INSTEAD):
        layers = layers.without_others(names)
    return options.build(cls, [own(layer) for layer in layers.all])


def _request(cls: type[Config], layers: Layers, backend: Backend, *, with_own: bool = True) -> Request[Config]:
    """Build the options of a command, and the backend's own where the command takes those."""
    _check_sections(layers, backend, used=with_own)
    layers = layers.each(lambda layer: _of_backend(layer, backend, cls))
    config = _build(cls, layers)
    check_effects(config, layers.given)
    for layer in layers.asked_for:
        _refuse_unsupported(config, layer, backend)
    for name, way in NOT_DROPPED.items():
        _refuse_unsupported(config, only(layers.base, [name]), backend, f"; to resume without it: {way}")
    own_options = _own_options(layers, backend) if with_own else backend.options()
    return Request(config=config, backend=backend, backend_options=own_options)


def _own_options(layers: Layers, backend: Backend) -> Any:
    return options.build(backend.options, [sections(layer).get(backend.name, {}) for layer in layers.all])


def _of_backend(layer: Layer, backend: Backend, cls: type) -> Layer:
    """What a layer says for one backend: options under its name override the shared ones."""
    apart = {f"{backend.name}.{name}": name for name in _apart()}
    found = {apart[name]: given for name, given in layer.items() if name in apart}
    return {**without(layer, apart), **only(found, _option_names(cls))}


def _apart() -> set[str]:
    """The shared options that may be set for one backend: how it trains and scores, not on what."""
    of_run = {"output_dir", "overwrite_output_dir", "resume_from_checkpoint"}
    groups = (OptimizationOptions, EvaluationOptions, RunOptions)
    return {name for group in groups for name in _option_names(group)} - of_run


def _moved() -> set[str]:
    """As `backend.option`, what was a backend's own before: a comparison takes it for one side, as it did then."""
    own = {status.name: options.list_options(status.backend.options) for status in list_backends() if status.backend}
    return {f"{name}.{option.name}" for name, found in own.items() for option in found if option.metadata["moved"]}


def _refuse_unsupported(config: Any, layer: Layer, backend: Backend, way_out: str = "") -> None:
    defaults = {option.name: option.default for option in options.list_options(type(config))}
    for name, given in own(layer).items():
        value = getattr(config, name)
        if value != defaults[name] and (reason := backend.why_not(name, value)):
            what = name if name in backend.unsupported else f"{name} {options.shown(value)}"
            raise OptionError(f"backend {backend.name} does not support {what}: {reason} ({given.place}){way_out}")


def _check_sections(layers: Layers, *backends: Backend, used: bool) -> None:
    """Make sure that options of backends exist; a file may contain unused ones, a call may not."""
    classes = {status.name: status.backend.options for status in list_backends() if status.backend}
    classes |= {backend.name: backend.options for backend in backends}
    names = [backend.name for backend in backends]
    for layer in layers.all:
        for section, values in sections(layer).items():
            place = next(iter(values.values())).place
            if section not in classes:
                raise options.unknown(section, [*_option_names(TrainConfig), *classes], place)
            options.build(TrainConfig, [only(values, _apart())])
            options.build(classes[section], [without(values, _apart())])
            if layer is layers.given and not (used and section in names):
                where = f"this run is on {' and '.join(names)}" if used else "only train takes such options"
                raise OptionError(f"{place} is an option of backend {section}, and {where}")


def _option_names(cls: type) -> list[str]:
    return [option.name for option in options.list_options(cls)]
