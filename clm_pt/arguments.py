"""clm's options to transformers' TrainingArguments, whatever its version."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from accelerate.utils import get_int_from_env
from transformers import TrainingArguments

from clm_core.backend import TrainingJob
from clm_core.errors import OptionError


def training_arguments(job: TrainingJob) -> TrainingArguments:
    """The arguments of a job; the schedule decides when to log, evaluate and save, not they.

    transformers 4 hands some of them to Trainer in `os.environ`: build the Trainer in the same `own_environment`.

    Raises:
        OptionError: the hardware does not support an option, or the training was started as several processes.
    """
    _check_alone()
    # transformers 4 keeps a precision that is set already, if the option names none.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if job.config.bf16 else "no"
    try:
        arguments = TrainingArguments(**_common(job), **_versioned(job))
    except ValueError as error:  # Such as bf16 on an accelerator without it.
        raise OptionError(f"transformers rejects these options: {error}") from None
    # With more, Trainer would make a batch of one for each of them, and the schedule's steps would be others.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


@contextmanager
def own_environment() -> Iterator[None]:
    """Restore `os.environ` at the end.

    transformers and accelerate leave settings in it, which the next training of the process would use.
    """
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _check_alone() -> None:
    # The variables that torchrun, accelerate and mpirun set, in the order in which accelerate looks.
    names = ["WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"]
    if (processes := get_int_from_env(names, 1)) > 1:
        raise OptionError(
            f"the training was started as {processes} processes, but clm trains in one, on one device: start it "
            "without torchrun, accelerate launch or mpirun"
        )


def _versioned(job: TrainingJob) -> dict[str, Any]:
    if not (job.config.gradient_checkpointing or job.options.gradient_checkpointing):
        return {}
    known = {field.name for field in fields(TrainingArguments)}
    new, old = "activation_checkpointing", "gradient_checkpointing"
    name = new if new in known else old
    # As in transformers 5: the other way, what a router hands out for the auxiliary loss would have no gradient.
    return {name: True, f"{name}_kwargs": {"use_reentrant": False}}


def _common(job: TrainingJob) -> dict[str, Any]:
    config, schedule = job.config, job.schedule
    use_cpu = not torch.accelerator.is_available()
    return {
        "output_dir": str(job.output_dir),
        "max_steps": schedule.total_steps,
        "per_device_train_batch_size": schedule.batch_size,
        "per_device_eval_batch_size": config.per_device_eval_batch_size,
        "gradient_accumulation_steps": schedule.accumulation,
        "dataloader_drop_last": schedule.drop_last,
        "learning_rate": schedule.learning_rate,
        "weight_decay": config.weight_decay,
        "adam_beta1": config.adam_beta1,
        "adam_beta2": config.adam_beta2,
        "adam_epsilon": config.adam_epsilon,
        # Otherwise clipping is done in clm_pt.optimization, which Trainer calls before each update.
        "max_grad_norm": config.max_grad_norm if job.options.guide else 0.0,
        "optim": "adamw_torch",
        "seed": config.seed,
        "bf16": config.bf16,
        "torch_compile": job.options.torch_compile,
        "use_cpu": use_cpu,
        "report_to": [],
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,  # It would log a loss that is not a number as 0.0, and continue.
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": not use_cpu,
    }
