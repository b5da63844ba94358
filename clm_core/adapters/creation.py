"""A new adapter, as the options ask for it."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from clm_core.adapters.defaults import TARGET_MODULES
from clm_core.backend.adapter import Adapter
from clm_core.config import ALL_LINEAR, WITHOUT_LORA, AdapterOptions
from clm_core.errors import OptionError
from clm_core.models.adapters.base import list_base


def new_adapter(options: AdapterOptions, name_or_path: str | None, revision: str, architecture: Any) -> Adapter | None:
    """The adapter that the options ask for, of the model at `name_or_path`; None without `lora_r`.

    Raises:
        OptionError: an option has no effect without `lora_r`, there is no model to start from, or no layers are known
            for its architecture.
    """
    if options.lora_r is None:
        _check_unused(options)
        return None
    if name_or_path is None:
        raise OptionError(
            f"lora_r {options.lora_r}: an adapter is trained beside an existing model: give --model-name-or-path"
        )
    is_folder = Path(name_or_path).is_dir()
    return Adapter(
        r=options.lora_r,
        alpha=options.lora_r if options.lora_alpha is None else options.lora_alpha,
        dropout=options.lora_dropout,
        use_rslora=options.use_rslora,
        target_modules=options.lora_target_modules or _default(architecture.model_type),
        modules_to_save=options.lora_modules_to_save,
        base=str(Path(name_or_path).absolute()) if is_folder else name_or_path,
        base_revision="main" if is_folder else revision,
        base_files=list_base(name_or_path) if is_folder else None,
    )


def _check_unused(options: AdapterOptions) -> None:
    for each in fields(AdapterOptions):
        if getattr(options, each.name) != each.default:
            raise OptionError(f"{each.name} {WITHOUT_LORA}")


def _default(model_type: str) -> tuple[str, ...]:
    if model_type not in TARGET_MODULES:
        raise OptionError(
            f"lora_target_modules: there is no default for model type {model_type}: name its dense layers, or give "
            f"{ALL_LINEAR}"
        )
    return TARGET_MODULES[model_type]
