"""Options that have an effect only with others: an error if one is given without effect.

This does not apply to a file or a recipe, which serves several commands.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from clm_core.config import (
    WITHOUT_LORA,
    AdapterOptions,
    EvaluateConfig,
    GenerateConfig,
    InspectConfig,
    ParityConfig,
    PrepareConfig,
    TrainConfig,
)
from clm_core.errors import OptionError
from clm_core.options import Layer, shown

DRAWS = ("top_k", "top_p", "temperature", "seed")
"""The options of `generate` for sampling."""

Rule = Callable[[Any], str | None]
"""Why an option has no effect in a configuration, and what gives it one; None if it has."""


def check_effects(config: Any, given: Layer) -> None:
    """Make sure that each option that was given has an effect.

    Raises:
        OptionError: one has none.
    """
    rules = RULES.get(type(config), {})
    for name in given:
        if (rule := rules.get(name)) and (why := rule(config)):
            raise OptionError(f"{name} {shown(getattr(config, name))} {why} ({given[name].place})")


def _with_steps(strategy: str) -> Rule:
    return lambda config: (
        None
        if getattr(config, strategy) == "steps"
        else f"has no effect with {strategy} {getattr(config, strategy)}: give --{_flag(strategy)} steps with it"
    )


def _limit(config: Any) -> str | None:
    if config.keeps_best:
        return None
    return "has no effect with save_strategy no, which writes no checkpoints" if config.save_strategy == "no" else None


def _patience(config: Any) -> str | None:
    return "has no effect without stop_on_loss_spike" if config.stop_on_loss_spike is None else None


def _of_adapter(config: Any) -> str | None:
    return WITHOUT_LORA if config.lora_r is None else None


def _of_adamw(config: TrainConfig | ParityConfig) -> str | None:
    return "has no effect with optim adafactor: it is AdamW's" if config.optim == "adafactor" else None


def _for_best(config: TrainConfig) -> str | None:
    return _of_validation(config) if config.keeps_best else None


def _metric(config: TrainConfig) -> str | None:
    needed = "has no effect without early_stopping_patience or load_best_model_at_end"
    return None if config.keeps_best else needed


def _threshold(config: TrainConfig) -> str | None:
    return "has no effect without early_stopping_patience" if config.early_stopping_patience is None else None


def _of_validation(config: Any) -> str | None:
    if getattr(config, "eval_strategy", None) == "no":
        return "has no effect with eval_strategy no"
    return _of_validation_data(config)


def _of_validation_data(config: Any) -> str | None:
    prepared = getattr(config, "prepared", None)
    if prepared or config.validation_file or config.validation_split_percentage:
        return None
    return "has no effect with validation_split_percentage 0 and no --validation-file"


def _eval_strategy(config: TrainConfig) -> str | None:
    return None if config.eval_strategy == "no" else _of_validation_data(config)


def _percentage(config: Any) -> str | None:
    if config.validation_split_percentage and config.validation_file:
        return "has no effect with validation_file: leave one of them out"
    return None


def _completion_only(config: Any) -> str | None:
    if config.completion_column or config.messages_column:
        return None
    return "has no effect without completion_column or messages_column: name the columns with it"


def _text_column(config: Any) -> str | None:
    for name in ("prompt_column", "text_template", "messages_column"):
        if getattr(config, name):
            return f"has no effect with {name} {shown(getattr(config, name))}: leave one of them out"
    return None


def _revision(config: Any) -> str | None:
    name = config.model_name_or_path
    if name is None:
        return "has no effect without model_name_or_path"
    return f"has no effect on {name}, which is a local folder" if Path(name).is_dir() else None


def _overwriting(config: TrainConfig) -> str | None:
    if config.overwrite_output_dir and not config.output_dir:
        return "has no effect without output_dir, because a new folder is chosen then"
    return None


def _resizing(config: TrainConfig | ParityConfig) -> str | None:
    return None if config.model_name_or_path else "has no effect on a new model, which has an embedding for every id"


def _of_push(config: TrainConfig) -> str | None:
    wanted = config.hub_offline or config.hub_strategy != "end"
    return "has no effect without push_to_hub" if wanted and not config.push_to_hub else None


def _of_draws(config: GenerateConfig) -> str | None:
    return None if config.do_sample else "has no effect without sampling: give --do-sample with it"


def _accumulation(config: TrainConfig | ParityConfig) -> str | None:
    if config.train_batch_size is None:
        return None
    return f"has no effect with train_batch_size {config.train_batch_size}: leave one of them out"


def _epochs(config: TrainConfig | ParityConfig) -> str | None:
    if config.max_trained_tokens is not None:
        return f"has no effect with max_trained_tokens {config.max_trained_tokens}: leave one of them out"
    return _tokens(config) if isinstance(config, ParityConfig) else None


def _steps(config: TrainConfig | ParityConfig) -> str | None:
    if config.max_steps < 0 or config.max_trained_tokens is None:
        return None
    given = f"max_trained_tokens {config.max_trained_tokens}"
    return f"has no effect with {given}: leave max_steps out, or give --max-trained-tokens none"


def _tokens(config: TrainConfig | ParityConfig) -> str | None:
    if config.max_steps <= 0:
        return None
    return f"has no effect with max_steps {config.max_steps}: give --max-steps -1, or leave this option out"


def _of_block(config: InspectConfig) -> str | None:
    return "has no effect with block none" if config.block is None else None


def _flag(name: str) -> str:
    return name.replace("_", "-")


_CHANGES: dict[str, Rule] = {"resize_embeddings": _resizing}

_STEP: dict[str, Rule] = {
    "gradient_accumulation_steps": _accumulation,
    **dict.fromkeys(("adam_beta1", "adam_beta2", "adam_epsilon"), _of_adamw),
    "num_train_epochs": _epochs,
    "max_steps": _steps,
    "max_trained_tokens": _tokens,
}

_DATA: dict[str, Rule] = {
    "text_column": _text_column,
    "completion_only_loss": _completion_only,
    "model_revision": _revision,
    "validation_split_percentage": _percentage,
    "max_eval_samples": _of_validation_data,
}

_ADAPTER: dict[str, Rule] = {each.name: _of_adapter for each in fields(AdapterOptions) if each.name != "lora_r"}

RULES: Mapping[type, Mapping[str, Rule]] = {
    TrainConfig: {
        **_DATA,
        **_STEP,
        **_CHANGES,
        **_ADAPTER,
        "eval_strategy": _eval_strategy,
        "eval_steps": _with_steps("eval_strategy"),
        "save_steps": _with_steps("save_strategy"),
        "save_total_limit": _limit,
        "loss_spike_patience": _patience,
        "early_stopping_patience": _for_best,
        "early_stopping_threshold": _threshold,
        "load_best_model_at_end": _for_best,
        "metric_for_best_model": _metric,
        "per_device_eval_batch_size": _of_validation,
        "overwrite_output_dir": _overwriting,
        "hub_offline": _of_push,
        "hub_strategy": _of_push,
    },
    EvaluateConfig: {name: rule for name, rule in _DATA.items() if name != "max_eval_samples"},
    GenerateConfig: {
        "model_revision": _revision,
        **dict.fromkeys(DRAWS, _of_draws),
    },
    PrepareConfig: _DATA,
    ParityConfig: {
        **_DATA,
        **_STEP,
        **_CHANGES,
        **_ADAPTER,
        "per_device_eval_batch_size": _of_validation_data,
    },
    InspectConfig: {"split": _of_block, "tokenizer_name": _of_block},
}
"""For the options of each command, those that need others."""
