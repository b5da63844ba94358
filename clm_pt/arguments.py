"""clm's options to transformers' TrainingArguments, whatever its version."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from transformers import TrainingArguments

from clm_core.backend import TrainingJob
from clm_core.counts import with_noun
from clm_core.errors import OptionError
from clm_pt.workers import is_worker, world


def training_arguments(job: TrainingJob) -> TrainingArguments:
    """The arguments of a job; the schedule decides when to log, evaluate and save, not they.

    transformers 4 hands some of them to Trainer in `os.environ`: build the Trainer in the same `own_environment`.

    Raises:
        OptionError: the hardware does not support an option, or there are other processes than the job is for.
    """
    _check_world(job)
    # transformers 4 keeps a precision that is set already, if the option names none.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if job.config.computes_in_bfloat16 else "no"
    if is_worker():  # accelerate would choose another number of threads.
        os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
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


def _check_world(job: TrainingJob) -> None:
    """Accelerate would wait for as many processes as the environment names."""
    if (started := world(None).size) != job.world.size:
        there = with_noun(started, "process was", "processes were")
        raise OptionError(f"{there} started, and the job is for {job.world.size}: give it its `world`")


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
        "per_device_train_batch_size": schedule.share_size,
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
        "optim": "adamw_torch_fused",
        "seed": config.seed,
        "bf16": config.computes_in_bfloat16,
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
        **(_of_several(use_cpu) if is_worker() else {}),
    }


def _of_several(use_cpu: bool) -> dict[str, Any]:
    """What is different where accelerate takes the process for one of several."""
    return {
        "ddp_backend": "gloo" if use_cpu else None,
        # A batch may leave experts or layers out, and a model may have parameters that it never uses.
        "ddp_find_unused_parameters": True,
        "ddp_broadcast_buffers": False,  # They are the same, and a mask of all positions is large.
        "average_tokens_across_devices": False,  # The trainer knows a step's tokens.
    }
