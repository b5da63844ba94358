"""The options of clm, and how the contract proves that a backend implements each of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from clm_core.backend import Backend
from clm_core.testing import recorded
from clm_core.testing.tiny import SETTINGS

Changes = tuple[Mapping[str, Any], Mapping[str, Any]]

SCHEDULED: dict[str, Any] = {
    "max_steps": 9,
    "eval_strategy": "steps",
    "eval_steps": 4,
    "per_device_eval_batch_size": 4,
    "save_strategy": "steps",
    "save_steps": 2,
    "save_total_limit": 4,
}
"""Options of the run that other runs are compared with; the order of its events proves each of them."""

TRAINING_PROBES: dict[str, Changes] = {
    "seed": ({}, {"seed": 7}),
    "num_train_epochs": ({"max_steps": -1, "num_train_epochs": 0.5}, {"max_steps": -1, "num_train_epochs": 1.0}),
    "per_device_train_batch_size": ({}, {"per_device_train_batch_size": 2}),
    "gradient_accumulation_steps": ({}, {"gradient_accumulation_steps": 2}),
    "train_batch_size": ({}, {"train_batch_size": 6}),
    "dataloader_drop_last": (
        {"max_steps": -1, "num_train_epochs": 1},
        {"max_steps": -1, "num_train_epochs": 1, "dataloader_drop_last": True},
    ),
    "learning_rate": ({}, {"learning_rate": 1e-3}),
    "embedding_learning_rate": ({}, {"embedding_learning_rate": 1e-3}),
    "lr_scheduler_type": ({}, {"lr_scheduler_type": "cosine"}),
    "lr_scheduler_kwargs": (
        {"lr_scheduler_type": "cosine"},
        {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": "num_cycles=2"},
    ),
    "warmup_steps": ({}, {"warmup_steps": 2}),
    "warmup_ratio": ({}, {"warmup_ratio": 0.5}),
    "optim": ({}, {"optim": "adafactor"}),
    "weight_decay": ({}, {"weight_decay": 0.5}),
    "adam_beta1": ({}, {"adam_beta1": 0.5}),
    "adam_beta2": ({}, {"adam_beta2": 0.9}),
    "adam_epsilon": ({}, {"adam_epsilon": 1e-2}),
    "max_grad_norm": ({}, {"max_grad_norm": 0.1}),
    "freeze": ({}, {"freeze": ("embeddings", "layers:0")}),
    "train_only": ({}, {"train_only": ("layers:-1", "*ln_*")}),
    "bf16": ({}, {"bf16": True}),
    "dtype": ({"bf16": True}, {"dtype": "bfloat16"}),
    "lora_r": ({"lora_r": 2}, {"lora_r": 4, "lora_alpha": 2}),
    "lora_alpha": ({"lora_r": 2}, {"lora_r": 2, "lora_alpha": 16}),
    "lora_dropout": ({"lora_r": 2}, {"lora_r": 2, "lora_dropout": 0.5}),
    "lora_target_modules": ({"lora_r": 2}, {"lora_r": 2, "lora_target_modules": ("c_fc",)}),
    "lora_modules_to_save": ({"lora_r": 2}, {"lora_r": 2, "lora_modules_to_save": ("ln_f",)}),
    "use_rslora": ({"lora_r": 2}, {"lora_r": 2, "use_rslora": True}),
}
"""For each other training option that a backend implements: two settings whose runs cannot be the same."""

SAMPLING_PROBES: dict[str, Changes] = {
    "max_new_tokens": ({}, {"max_new_tokens": 5}),
    "do_sample": ({}, {"do_sample": True, "top_k": 0}),
    "top_k": ({"do_sample": True, "top_k": 0}, {"do_sample": True, "top_k": 1}),
    "top_p": ({"do_sample": True, "top_k": 0}, {"do_sample": True, "top_k": 0, "top_p": 0.01}),
    "temperature": ({"do_sample": True, "top_k": 0}, {"do_sample": True, "top_k": 0, "temperature": 0.01}),
    "seed": ({"do_sample": True, "top_k": 0}, {"do_sample": True, "top_k": 0, "seed": 7}),
}
"""The same for the options of a generation."""

MEMORY_OPTIONS: dict[str, Any] = {"gradient_checkpointing": True}
"""Options that save memory, and a setting of each. They change no number of a run, as the contract proves.

What they save, no number shows: a test of the backend's own has to, such as one that counts the calls of a layer.
"""

CORE_OPTIONS = {
    *("model_name_or_path", "model_revision", "tokenizer_name", "config_name", "model_type", "config_overrides"),
    *("dataset_name", "dataset_config_name", "dataset_split", "revision", "streaming", "train_file", "validation_file"),
    *("validation_split_percentage", "text_column", "sample_by", "max_train_samples", "max_train_tokens"),
    *("max_eval_samples", "block_size", "append_eos", "packing"),
    *("preprocessing_num_workers", "prepared", "overwrite_cache"),
    *("json_field", "csv_delimiter", "encoding"),
    *("prompt_column", "completion_column", "text_template", "messages_column", "completion_only_loss"),
    *(
        "nproc_per_node",
        "output_dir",
        "overwrite_output_dir",
        "resume_from_checkpoint",
        "output_file",
        "logging_steps",
        "report_to",
    ),
    *("early_stopping_patience", "early_stopping_threshold", "load_best_model_at_end", "metric_for_best_model"),
    *("max_trained_tokens", "max_train_time"),
    *("auto_find_batch_size", "check_disk", "save_on_signal", "stop_on_loss_spike", "loss_spike_patience"),
    *("push_to_hub", "hub_model_id", "hub_private_repo", "hub_revision", "hub_strategy", "hub_offline", "hub_license"),
}
"""The options that the core implements, before and after it calls a backend."""

MODEL_OPTIONS = {"ignore_unused_weights", "resize_embeddings"}
"""Those that come with the model; each has a test in the contract."""

COUNTED = {"max_new_tokens", "do_sample", "top_k", "top_p", "temperature"}
"""Sampling options that the counts of drawn tokens prove, where a model with given chances can be made."""


def scheduled(backend: Backend) -> dict[str, Any]:
    """`SCHEDULED`, without what the backend does not support."""
    return {name: value for name, value in SCHEDULED.items() if not backend.why_not(name, value)}


def recorded_runs(backend: Backend) -> list[str]:
    """The recorded runs that the backend can do: those of which it supports every option, and the mask."""
    if backend.incomparable:
        return []
    runs = recorded.RUNS | ({recorded.MASKED: recorded.MASKED_OPTIONS} if backend.masks else {})
    return [name for name, options in runs.items() if _takes(backend, options)]


def by_another_optimizer(backend: Backend) -> list[str]:
    """The recorded runs by another optimizer than AdamW, those that the backend can do."""
    return [name for name in recorded_runs(backend) if name in recorded.BY_ANOTHER]


def resumed_runs(backend: Backend) -> list[str]:
    """The recorded runs that resume another backend's checkpoint, those that the backend can do."""
    if backend.incomparable:
        return []
    return [name for name, options in recorded.RESUMED_RUNS.items() if _takes(backend, options)]


def of_training(backend: Backend) -> list[str]:
    """The training options that a probe has to prove: supported, and not proved by recorded numbers."""
    runs = [recorded.RUNS[name] for name in recorded_runs(backend) if name in recorded.RUNS]
    runs += [recorded.RESUMED_RUNS[name] for name in resumed_runs(backend)]
    proved = {name for options in runs for name in {**SETTINGS, **options}}
    return [name for name in _without(TRAINING_PROBES, proved, backend) if _can_be_set(TRAINING_PROBES[name], backend)]


def of_memory(backend: Backend) -> list[str]:
    """The options that save memory, those that the backend supports."""
    return _without(MEMORY_OPTIONS, set(), backend)


def of_generation(backend: Backend) -> list[str]:
    """The generation options that a probe has to prove: supported, and not proved by counts."""
    return _without(SAMPLING_PROBES, set() if backend.incomparable else COUNTED, backend)


def _can_be_set(changes: Changes, backend: Backend) -> bool:
    """Whether the backend supports all that the two settings have: some options need another one."""
    return all(_takes(backend, options) for options in changes)


def _takes(backend: Backend, options: Mapping[str, Any]) -> bool:
    return not any(backend.why_not(name, value) for name, value in options.items())


def _without(probes: Collection[str], proved: Collection[str], backend: Backend) -> list[str]:
    return [name for name in probes if name not in proved and name not in backend.unsupported]
