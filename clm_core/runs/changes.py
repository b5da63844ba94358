"""What changes between a run and its resumption: options that may change, and those that make it another run."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from clm_core.config import (
    AdapterOptions,
    ArchitectureOptions,
    DataOptions,
    EvaluationOptions,
    HubOptions,
    ModelChangesOptions,
    OptimizationOptions,
    PartsOptions,
    PreparedOptions,
    PreprocessingOptions,
    RunOptions,
    TokenizerOptions,
    TrainConfig,
    WeightsOptions,
)
from clm_core.errors import OptionError
from clm_core.models.overrides import split
from clm_core.options import changed, list_options, shown
from clm_core.record import Record, without_folders

Changes = dict[str, tuple[Any, Any]]
"""For each option that is another one now, its value before and its value now."""


def _names(*groups: type) -> set[str]:
    return {field.name for group in groups for field in fields(group)}


ELSEWHERE = {
    *_names(HubOptions),
    *("output_dir", "overwrite_output_dir", "resume_from_checkpoint", "overwrite_cache", "report_to"),
    *("preprocessing_num_workers", "streaming", "check_disk", "save_on_signal", "nproc_per_node", "max_train_time"),
    "auto_find_batch_size",
}
"""Where and when things are written, and how fast: of no consequence for the training."""

LOCATIONS = {"train_file", "prepared"}
"""Where the text is. The same text may have moved: what there is now decides, by its checksum."""

OF_EVALUATION = {"validation_file", "max_eval_samples"}
"""What the scores are of: named, because the scores before the change cannot be compared with those after it."""

OF_STATE = {"optim"}
"""What the state in a checkpoint is of: another optimizer has no use for it."""

MAY_CHANGE = (_names(OptimizationOptions, EvaluationOptions, RunOptions) | LOCATIONS | OF_EVALUATION) - (
    ELSEWHERE | OF_STATE
)
"""A training can be resumed with other values: its steps from then on are different ones."""

SETTLED = OF_STATE | (
    _names(DataOptions, PreprocessingOptions, PreparedOptions, TokenizerOptions, WeightsOptions, ArchitectureOptions)
    | _names(AdapterOptions, ModelChangesOptions, PartsOptions)
) - (MAY_CHANGE | ELSEWHERE)
"""What the run is: with another model, or other blocks, it is another run."""

FOLLOWS = {"lora_alpha": "lora_r"}
"""The options that are as another one where they are not given."""

LENGTH = {
    *("max_steps", "num_train_epochs", "max_trained_tokens", "dataloader_drop_last"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "train_batch_size"),
}
"""The options that the number of steps follows from."""

OF_STEPS = _names(OptimizationOptions) - LENGTH - OF_STATE
"""The options that only steps know of."""


def changes(before: Record, config: TrainConfig, sections: Mapping[str, Any]) -> Changes:
    """Compare the options of a run, as `read_options` returns them, with those of its resumption.

    `sections` has the own options of the backend that resumes, by its name.

    Raises:
        OptionError: an option that defines the data or the model is another one.
    """
    found, settled = _changes(before, config, SETTLED | MAY_CHANGE), set(SETTLED)
    for name, section in sections.items():
        own = _changes(before.get(name) or {}, section, {option.name for option in list_options(type(section))})
        found |= {f"{name}.{key}": change for key, change in own.items()}
        settled |= {f"{name}.{field.name}" for field in fields(section) if field.metadata.get("settled")}
    if "config_overrides" in found:
        found |= _of_overrides(*found.pop("config_overrides"))
    if wrong := sorted(found.keys() & settled, key=lambda name: (name in FOLLOWS, name)):
        # Text from elsewhere may bring other options with it, such as its column, which nobody has given.
        from_elsewhere = [name for name in sorted(found.keys() & LOCATIONS) if not all(map(_is_given, found[name]))]
        raise OptionError(_makes_another_run([*from_elsewhere, *wrong][0], found))
    return found


def lines(found: Changes) -> list[str]:
    """A line for each change."""
    return [
        f"{name}: {_shown(was, name)} before, {_shown(now, name)} from now on" for name, (was, now) in found.items()
    ]


def without_effect(found: Changes) -> list[str]:
    """A line for each change, where no step is left for those of steps."""
    of_steps = {name: pair for name, pair in found.items() if name in OF_STEPS}
    return too_late(of_steps) + lines({name: pair for name, pair in found.items() if name not in OF_STEPS})


def too_late(found: Changes) -> list[str]:
    """A line for each change that comes after the last step."""
    return [
        f"{name} {_shown(now, name)} has no effect any more: it was trained with {_shown(was, name)}"
        for name, (was, now) in found.items()
    ]


def _makes_another_run(name: str, found: Changes) -> str:
    was, now = found[name]
    is_now = f"is {shown(now)}" if _is_given(now) else "is not given"
    had = f"with {shown(was)}" if _is_given(was) else "without it"
    return (
        f"{name} {is_now}, but the run was started {had}, and another value makes another run: "
        "use the same to resume it, or choose another folder with --output-dir, and name no run to resume"
    )


def _is_given(value: Any) -> bool:
    return value is not None and value not in ([], ())


def _shown(value: Any, name: str = "") -> str:
    nothing = "the model's own" if name.startswith("config_overrides ") else "none"
    return shown(value) if _is_given(value) else nothing


def _changes(before: Record, config: Any, names: set[str]) -> Changes:
    defaults = without_folders({option.name: _plain(option.default) for option in list_options(type(config))})
    now = {**defaults, **without_folders(changed(config))}
    was = {name: before.get(name, default) for name, default in defaults.items()}
    for values in (was, now):
        values |= {name: values[other] for name, other in FOLLOWS.items() if name in names and values[name] is None}
    pairs = {name: (was[name], now[name]) for name in sorted(names)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _of_overrides(before: str | None, now: str | None) -> Changes:
    """A change of `config_overrides`: of dropout alone by the fields that changed, which may be; else of the option."""
    was, new = (split(text) if text else {} for text in (before, now))
    names = sorted(name for name in was.keys() | new.keys() if was.get(name) != new.get(name))
    if not names or any("drop" not in name for name in names):
        return {"config_overrides": (before, now)}
    return {f"config_overrides {name}": (was.get(name), new.get(name)) for name in names}
