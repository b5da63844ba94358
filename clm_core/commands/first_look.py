"""Early checks: files, columns and folders, before a framework or transformers is imported."""

from pathlib import Path
from typing import Any

from clm_core import options
from clm_core.config import DataOptions, ParityConfig, TrainConfig, named
from clm_core.data.sources import check_sources
from clm_core.errors import OptionError
from clm_core.models.overrides import split
from clm_core.models.presence import is_gone, is_here, reach
from clm_core.paths import in_shell

DECIDING = ("model_name_or_path", "config_name", "model_type", "tokenizer_name")
"""The options of which one has to be given: the model, or the tokenizer of a new one."""

CHANGED_FIRST = {
    "config_overrides": "write these fields into config.json in a copy of the model",
    "resize_embeddings": "train the new embeddings first, without lora_r, such as with --train-only embeddings",
}
"""How a model is changed before it gets an adapter."""


def look(config: Any, backend: str = "") -> None:
    """Find errors in the options of a command within a tenth of a second, or with one request to the Hub.

    Raises:
        ClmError: the data, a folder or the model is not there, or none is named; or an option cannot be.
    """
    if isinstance(config, DataOptions) and not (getattr(config, "prepared", None) or getattr(config, "merge", None)):
        check_sources(config)
    if isinstance(config, TrainConfig | ParityConfig):
        from clm_core.schedule import check_rates  # It needs NumPy, which the other commands do without.

        _check_model(config, backend)
        check_rates(config)
        _check_base(config)
        _check_parts(config)
        _check_changes(config)
    names = named(config)
    if isinstance(config, TrainConfig) and _has_checkpoint(config):  # Which has what is gone as well.
        names = {option: name for option, name in names.items() if not is_gone(name)}
    wanted = {option: name for option, name in names.items() if not is_here(option, name)}
    for name in dict.fromkeys(wanted.values()):
        reach(name, config.model_revision if name == names.get("model_name_or_path") else "main")


def _check_model(config: TrainConfig | ParityConfig, backend: str) -> None:
    if config.config_name and config.model_type:
        raise OptionError("config_name and model_type cannot be combined: give one of them")
    scratch = [name for name in ("config_name", "model_type") if getattr(config, name)]
    if config.model_name_or_path and scratch:
        raise OptionError(
            f"{' and '.join(scratch)} cannot be combined with model_name_or_path "
            f"{config.model_name_or_path}: give one of them"
        )
    if not any(getattr(config, name) for name in DECIDING):
        raise OptionError(_ways_to_a_model(config, backend))


def _check_base(config: TrainConfig | ParityConfig) -> None:
    """Make sure that an adapter that resumes has its base, before this is missed by its name alone."""
    from clm_core.backend.adapter import CONFIG
    from clm_core.marker import PREFIX
    from clm_core.models.adapters.finding import find_adapter

    if run := _resumed(config):
        found = (file.parent for place in (".", f"{PREFIX}*") for file in run.glob(f"{place}/{CONFIG}"))
        if place := next(found, None):
            find_adapter(str(place), "main")


def _has_checkpoint(config: TrainConfig) -> bool:
    from clm_core.checkpoints import MARKER, list_complete

    run = _resumed(config)
    return run is not None and ((run / MARKER).is_file() or bool(list_complete(run)))


def _resumed(config: TrainConfig | ParityConfig) -> Path | None:
    """The run or the checkpoint that a training resumes, if it is named or in a folder that is."""
    from clm_core.options.resolve import AUTO

    resumed = getattr(config, "resume_from_checkpoint", None)
    place = config.output_dir if resumed == AUTO else resumed
    return None if resumed is None else Path(place or "")


def _check_parts(config: TrainConfig | ParityConfig) -> None:
    chosen = [name for name in ("freeze", "train_only") if getattr(config, name)]
    if len(chosen) > 1:
        raise OptionError("freeze and train_only cannot be combined: give one of them")
    chosen += ["embedding_learning_rate"] if config.embedding_learning_rate is not None else []
    if chosen and config.lora_r is not None:
        raise OptionError(
            f"{chosen[0]} and lora_r cannot be combined: with lora_r, only the adapter is trained: give one of them"
        )


def _check_changes(config: TrainConfig | ParityConfig) -> None:
    """An adapter is opened beside its base, which has neither."""
    changed = split(config.config_overrides) if config.config_overrides and config.model_name_or_path else {}
    given = ["config_overrides"] if any("drop" not in name for name in changed) else []
    given += ["resize_embeddings"] if config.resize_embeddings else []
    if given and config.lora_r is not None:
        raise OptionError(
            f"{given[0]} and lora_r cannot be combined: an adapter is opened beside its base as it is: "
            f"{CHANGED_FIRST[given[0]]}, and give the folder of that as --model-name-or-path"
        )


def _ways_to_a_model(config: TrainConfig | ParityConfig, backend: str) -> str:
    command = "train" if isinstance(config, TrainConfig) else "parity"
    start = f"clm --backend {backend} {command}" if backend else f"clm {command}"
    given = options.changed(config)
    offline = "" if config.dataset_name else ", offline"
    ready = {name: value for name, value in given.items() if name != "config_overrides"}  # For the one that is made.
    return (
        "no model is given: "
        f"`{start} {_as_flags(ready)} --model-name-or-path distilbert/distilgpt2` fine-tunes one, "
        f"`{start} --config sample {_as_flags(given)}` trains a small one from scratch{offline}"
    )


def _as_flags(given: dict[str, Any]) -> str:
    return " ".join(map(in_shell, options.to_flags(given)))
