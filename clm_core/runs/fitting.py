"""The batch that fits in memory: half as many blocks at a time, as long as the first step runs out of it."""

import copy
import gc
from collections.abc import Callable
from dataclasses import replace

from clm_core.backend import Backend, TrainingJob, World
from clm_core.config import TrainConfig
from clm_core.counts import with_noun
from clm_core.errors import OptionError, is_out_of_memory
from clm_core.runs.history import Recorder

CHOSEN = "per_device_train_batch_size"
"""What the results call the batch that was found."""


def check_can_be_found(config: TrainConfig, world: World) -> None:
    """Make sure that the batch can become smaller.

    Raises:
        OptionError: there are several devices, or what an epoch has depends on the batch.
    """
    if not config.auto_find_batch_size:
        return
    if world.size > 1:
        raise OptionError(
            f"auto_find_batch_size tries batches on one device, and there are {world.size}: find it on one, and give "
            "all of them --per-device-train-batch-size"
        )
    if config.dataloader_drop_last:
        raise OptionError(
            "auto_find_batch_size and dataloader_drop_last cannot be combined: which blocks an epoch leaves out would "
            "depend on the batch"
        )


def train_in_memory(backend: Backend, job: TrainingJob, recorder: Recorder, say: Callable[[str], None]) -> None:
    """Have the backend train, and with `auto_find_batch_size` start again in smaller batches where they do not fit.

    A step has the same blocks in more batches, so that the losses are those of the larger ones. Once a step is done, or
    in an evaluation, which has a batch of its own, running out of memory is an error as always.
    """
    while True:
        try:
            backend.train(_with_own_architecture(job))
            return
        except Exception as error:
            if not (is_out_of_memory(error) and _can_be_smaller(job, recorder)):
                raise
        # Not within `except`, where the error still holds the model that did not fit.
        gc.collect()
        job = _smaller(job, recorder)
        recorder.chosen[CHOSEN] = str(job.schedule.share_size)
        say(f"out of memory in the first step: trying {with_noun(job.schedule.share_size, 'block')} at a time")


def _with_own_architecture(job: TrainingJob) -> TrainingJob:
    """The job with a copy of its architecture: a framework changes what it trains, and the next attempt starts anew."""
    return replace(job, model=replace(job.model, architecture=copy.deepcopy(job.model.architecture)))


def _can_be_smaller(job: TrainingJob, recorder: Recorder) -> bool:
    has_begun = recorder.step > job.first_step or recorder.is_evaluating
    return job.config.auto_find_batch_size and not has_begun and job.schedule.share_size > 1


def _smaller(job: TrainingJob, recorder: Recorder) -> TrainingJob:
    return replace(
        job,
        schedule=replace(job.schedule, batch_size=job.schedule.share_size // 2),
        is_scored=job.is_scored or recorder.metrics_at(job.first_step) is not None,
    )
