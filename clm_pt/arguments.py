"""From clm's options to transformers' TrainingArguments: the one place that knows how its versions differ."""

import os
from dataclasses import fields
from typing import Any

import torch
from transformers import TrainingArguments

from clm_core.backend import TrainingJob
from clm_core.errors import OptionError


def training_arguments(job: TrainingJob) -> TrainingArguments:
    """The arguments of a job; when to log, evaluate and save is the schedule's to say, not theirs.

    Raises:
        OptionError: the hardware cannot do what an option asks for.
    """
    # transformers 4 leaves bf16 in the environment, where the next training of the process would find it.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if job.config.bf16 else "no"
    try:
        return TrainingArguments(**_common(job), **_versioned(job))
    except ValueError as error:  # Such as bf16 on an accelerator that has none.
        raise OptionError(f"transformers refuses these options: {error}") from None


def _versioned(job: TrainingJob) -> dict[str, Any]:
    known = {field.name for field in fields(TrainingArguments)}
    new, old = "activation_checkpointing", "gradient_checkpointing"
    return {new if new in known else old: True} if job.options.gradient_checkpointing else {}


def _common(job: TrainingJob) -> dict[str, Any]:
    config, schedule, options = job.config, job.schedule, job.options
    use_cpu = options.use_cpu or not torch.accelerator.is_available()
    return {
        "output_dir": str(job.output_dir),
        "max_steps": schedule.total_steps,
        "per_device_train_batch_size": schedule.batch_size,
        "gradient_accumulation_steps": schedule.accumulation,
        "learning_rate": schedule.learning_rate,
        "lr_scheduler_type": schedule.lr_scheduler_type,
        "warmup_steps": schedule.warmup_steps,
        "weight_decay": config.weight_decay,
        "adam_beta1": config.adam_beta1,
        "adam_beta2": config.adam_beta2,
        "adam_epsilon": config.adam_epsilon,
        "max_grad_norm": config.max_grad_norm,
        "optim": "adamw_torch",
        "seed": config.seed,
        "bf16": config.bf16,
        "torch_compile": options.torch_compile,
        "use_cpu": use_cpu,
        "report_to": [],
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,  # It would log a loss that is not a number as 0.0, and go on.
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": not use_cpu,
    }
