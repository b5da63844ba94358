"""adapter_config.json: what peft writes of an adapter, read with no field ignored, and written."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clm_core.backend.adapter import CONFIG, Adapter
from clm_core.errors import ModelError
from clm_core.models.adapters.conv1d import is_conv1d

WITHOUT_EFFECT = {
    *("auto_mapping", "peft_version", "inference_mode", "runtime_config", "fan_in_fan_out"),
    *("layers_pattern", "megatron_core", "qalora_group_size", "loftq_config", "eva_config", "corda_config"),
    *("lora_ga_config", "ensure_weight_tying"),
}
"""Fields that change no number of an adapter that has been trained, or only together with another one."""

KEPT = {
    *("r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules", "modules_to_save"),
    *("base_model_name_or_path", "revision", "peft_type", "task_type", "bias", "init_lora_weights"),
}
"""Fields that are read."""

STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""Ways to draw the first weights of an adapter that leave the base as it is."""

MERGE = "merge it into its model with peft's merge_and_unload, and use the result"


def read_configuration(file: Path, *, folder: str) -> Adapter:
    """The adapter that a file describes, with its weights in `folder`.

    Raises:
        ModelError: it cannot be read, or is of an adapter that is more than LoRA; the field is named.
    """
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(fields, dict):
            raise ValueError("it has no fields")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from None
    _check_kind(fields, file)
    r, alpha = _number(fields, "r", file), _number(fields, "lora_alpha", file)
    if r != int(r) or r < 1:
        raise ModelError(f"{file}: r is {fields['r']!r}, and must be a whole number above 0")
    return Adapter(
        r=int(r),
        alpha=alpha,
        dropout=_number({"lora_dropout": 0.0, **fields}, "lora_dropout", file),
        use_rslora=_choice(fields, "use_rslora", file),
        target_modules=_names(fields, "target_modules", file),
        modules_to_save=_names(fields, "modules_to_save", file),
        base=_text(fields, "base_model_name_or_path", file),
        base_revision=fields.get("revision") or "main",
        folder=folder,
    )


def check_is(adapter: Adapter, folder: Path) -> None:
    """Make sure that the files in a folder are of this adapter.

    Raises:
        ModelError: they are of one with another rank or scale, or cannot be read.
    """
    found = read_configuration(folder / CONFIG, folder=str(folder))
    for name in ("r", "alpha", "use_rslora"):
        if (written := getattr(found, name)) != (wanted := getattr(adapter, name)):
            raise ModelError(f"{folder / CONFIG}: {name} is {written}, and this adapter has {wanted}")


def write_configuration(adapter: Adapter, architecture: Any, targets: Sequence[str], file: Path) -> None:
    """Write what every version of peft reads; `targets` are the layers with an adapter, if all of them are meant."""
    named = [name for name in adapter.target_modules if any(_ends(target, name) for target in targets)]
    fields = {
        "base_model_name_or_path": adapter.base,
        "bias": "none",
        # peft has it so for a layer that keeps its weight as (in, out).
        "fan_in_fan_out": any(is_conv1d(target, architecture) for target in targets),
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(adapter.alpha) if adapter.alpha == int(adapter.alpha) else adapter.alpha,
        "lora_dropout": adapter.dropout,
        "modules_to_save": list(adapter.modules_to_save) or None,
        "peft_type": "LORA",
        "r": adapter.r,
        "revision": None if Path(adapter.base).is_absolute() else adapter.base_revision,
        "target_modules": named or sorted(targets),
        "task_type": "CAUSAL_LM",
        "use_rslora": adapter.use_rslora,
    }
    file.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def _check_kind(fields: Mapping[str, Any], file: Path) -> None:
    """Make sure that what an adapter does is what LoRA does, and nothing else."""
    if (kind := fields.get("peft_type")) != "LORA":
        raise ModelError(f"{file}: peft_type is {kind!r}, and clm has LoRA alone: {MERGE}")
    if (task := fields.get("task_type")) not in (None, "CAUSAL_LM"):
        raise ModelError(f"{file}: task_type is {task!r}, and clm has CAUSAL_LM alone")
    if (start := fields.get("init_lora_weights", True)) not in STARTS:
        raise ModelError(f"{file}: init_lora_weights {start!r} changes the weights of the base, too: {MERGE}")
    if (bias := fields.get("bias", "none")) != "none":
        raise ModelError(f"{file}: bias {bias!r} trains biases of the base, too: {MERGE}")
    for name in sorted(fields.keys() - KEPT - WITHOUT_EFFECT):
        if not _does_nothing(fields[name]):
            raise ModelError(f"{file}: {name} {fields[name]!r} makes it more than LoRA as clm has it: {MERGE}")


def _does_nothing(value: Any) -> bool:
    """Whether it is one of the values that peft writes of what is not used; the number 0 is none."""
    return value is None or value is False or value in ([], {}, "")


def _number(fields: Mapping[str, Any], name: str, file: Path) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ModelError(f"{file}: {name} is {value!r}, and must be a number")
    return value


def _choice(fields: Mapping[str, Any], name: str, file: Path) -> bool:
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise ModelError(f"{file}: {name} is {value!r}, and must be true or false")
    return bool(value)


def _names(fields: Mapping[str, Any], name: str, file: Path) -> tuple[str, ...]:
    """A list of names; a pattern, which peft also takes, is none."""
    value = fields.get(name) or []
    if isinstance(value, str) or not all(isinstance(each, str) and each for each in value):
        raise ModelError(f"{file}: {name} is {value!r}, and must be a list of names of modules")
    return tuple(value)


def _text(fields: Mapping[str, Any], name: str, file: Path) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise ModelError(f"{file}: {name} is {value!r}, so that it is not known which model the adapter belongs to")
    return value


def _ends(module: str, name: str) -> bool:
    return module == name or module.endswith(f".{name}")
