"""What a person asked for, made whole: defaults, a recipe or file, what was given, the backend and its own options."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from clm_core import checkpoints, options
from clm_core.backend import Backend
from clm_core.config import (
    DataOptions,
    EvaluateConfig,
    GenerateConfig,
    PrepareConfig,
    PreprocessingOptions,
    TrainConfig,
)
from clm_core.errors import OptionError
from clm_core.options import Given, Layer
from clm_core.recipes import find_recipe
from clm_core.registry import list_backends

Config = TypeVar("Config")

RUN_FILE = "run.yaml"
"""In the folder of a run: its options, as a configuration file."""

DATA = ("dataset_name", "train_file", "validation_file", "prepared")
MODEL = ("model_name_or_path", "config_name", "model_type")

SAMPLE_DATA = {"text_column": Given("answers.text", "the built-in sample")}
SAMPLE_TOKENIZER = {"tokenizer_name": Given("sample", "the built-in sample")}


@dataclass(frozen=True, kw_only=True)
class Request(Generic[Config]):
    """The options of a verb and of the backend that is to carry it out."""

    config: Config
    backend: Backend
    backend_options: Any


def training(given: Layer, *, file: str | Path | None, backend: Backend) -> Request[TrainConfig]:
    """The request for a training: on the built-in sample where nothing is named, with its own options if resumed."""
    layers = [_read(file, TrainConfig), given]
    if "resume_from_checkpoint" in given:
        base = _resumed(given["resume_from_checkpoint"])
    elif _names(layers, DATA):
        base = {}
    else:
        base = SAMPLE_DATA if _names(layers, MODEL) else options.from_file(find_recipe("sample"))
    return _request(TrainConfig, [base, *layers], backend)


def evaluation(given: Layer, *, file: str | Path | None, backend: Backend) -> Request[EvaluateConfig]:
    """The request for an evaluation: on the data of the run, where a run is evaluated and no other data are named."""
    layers = [_read(file, EvaluateConfig), given]
    run = _recorded(layers)
    kept = {field.name for field in fields(PreprocessingOptions)} - {"prepared", "overwrite_cache"}
    if not _names(layers, DATA):
        kept |= {field.name for field in fields(DataOptions)} | {"prepared"}
    base = {name: given for name, given in run.items() if name in kept}
    if not run and not _names(layers, DATA):
        base = SAMPLE_DATA
    return _request(EvaluateConfig, [base, *layers], backend)


def generation(given: Layer, *, file: str | Path | None, backend: Backend) -> Request[GenerateConfig]:
    """The request for a generation."""
    return _request(GenerateConfig, [{}, _read(file, GenerateConfig), given], backend)


def preparation(given: Layer, *, file: str | Path | None) -> PrepareConfig:
    """The options of a preparation: of the built-in sample, and with its tokenizer, where none are named."""
    layers = [_read(file, PrepareConfig), given]
    data = {} if _names(layers, DATA) else SAMPLE_DATA
    tokenizer = {} if _names(layers, ("tokenizer_name", "model_name_or_path")) else SAMPLE_TOKENIZER
    return _build(PrepareConfig, [{**data, **tokenizer}, *layers])


def _read(file: str | Path | None, cls: type) -> Layer:
    """The options of a recipe or file; those of a training that the verb has no use for are left out."""
    if file is None:
        return {}
    mine, known = _option_names(cls), _option_names(TrainConfig)
    layer = options.from_file(find_recipe(file))
    return {name: given for name, given in layer.items() if name in mine or name not in known}


def _build(cls: type[Config], layers: Sequence[Layer]) -> Config:
    return options.build(cls, [_own(layer) for layer in layers])


def _request(cls: type[Config], layers: Sequence[Layer], backend: Backend) -> Request[Config]:
    """Build the options; the first layer is not the person's own, so that what it says is never refused."""
    config = _build(cls, layers)
    for layer in layers[1:]:
        _refuse_unsupported(config, layer, backend)
    return Request(config=config, backend=backend, backend_options=_backend_options(layers, backend))


def _own(layer: Layer) -> dict[str, Given]:
    return {name: given for name, given in layer.items() if "." not in name}


def _names(layers: Sequence[Layer], names: Sequence[str]) -> bool:
    return any(name in layer for layer in layers for name in names)


def _refuse_unsupported(config: Any, layer: Layer, backend: Backend) -> None:
    defaults = {option.name: option.default for option in options.list_options(type(config))}
    for name, given in _own(layer).items():
        if name in backend.unsupported and getattr(config, name) != defaults[name]:
            reason = backend.unsupported[name]
            raise OptionError(f"backend {backend.name} does not support {name}: {reason} ({given.place})")


def _backend_options(layers: Sequence[Layer], backend: Backend) -> Any:
    """The options of this backend; a file may hold those of others besides, a flag or an argument may not."""
    classes = {status.name: status.backend.options for status in list_backends() if status.backend}
    classes[backend.name] = backend.options
    mine: list[Layer] = []
    for layer in layers:
        for section, values in _sections(layer).items():
            place = next(iter(values.values())).place
            if section not in classes:
                raise options.unknown(section, [*_option_names(TrainConfig), *classes], place)
            options.build(classes[section], [values])
            if section == backend.name:
                mine.append(values)
            elif place.startswith(("--", "argument")):
                raise OptionError(f"{place} is an option of backend {section}, and this run is on {backend.name}")
    return options.build(backend.options, mine)


def _sections(layer: Layer) -> dict[str, dict[str, Given]]:
    sections: dict[str, dict[str, Given]] = {}
    for name, given in layer.items():
        section, dot, option = name.partition(".")
        if dot:
            sections.setdefault(section, {})[option] = given
    return sections


def _option_names(cls: type) -> list[str]:
    return [option.name for option in options.list_options(cls)]


def _resumed(given: Given) -> dict[str, Given]:
    """The options of the run that a checkpoint belongs to, and its folder as the output folder."""
    run = checkpoints.find(Path(given.value)).absolute().parent
    recorded = options.from_file(run / RUN_FILE) if (run / RUN_FILE).is_file() else {}
    return {**recorded, "output_dir": Given(str(run), given.place)}


def _recorded(layers: Sequence[Layer]) -> dict[str, Given]:
    """The options of the run that the model is of, where it is one."""
    for layer in reversed(layers):
        if "model_name_or_path" in layer:
            file = Path(layer["model_name_or_path"].value) / RUN_FILE
            return options.from_file(file) if file.is_file() else {}
    return {}
