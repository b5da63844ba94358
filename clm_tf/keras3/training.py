"""Trains a decoder with Keras 3: compile, fit, and callbacks that follow the schedule."""

import keras
import tensorflow as tf

from clm_core.backend import TrainingJob
from clm_core.checkpoints import take_last_model
from clm_tf.devices import strategy_of
from clm_tf.keras3 import checkpoints, masters, modeling, parts
from clm_tf.keras3.accumulation import reduce_steps, step_in_chunks
from clm_tf.keras3.callbacks import Checkpoints, Evaluation, StepReport, StepSeeds
from clm_tf.keras3.checks import check
from clm_tf.keras3.datasets import shared_dataset, training_dataset
from clm_tf.keras3.decoder import Decoder
from clm_tf.keras3.optimization import NextToken, create_optimizer
from clm_tf.keras3.scoring import score
from clm_tf.together import Together

PAYS_FROM = 1e13
"""Operations of a training, 6 for each parameter and token, from which XLA pays.

Compiling takes one processor 6 seconds more. It makes a step faster, by 7% (14 million parameters) to 15%
(82 million):
both are even after 6e12.
"""


def train(job: TrainingJob) -> None:
    """Train, from the beginning or from `job.resume_from`, and write the model to `job.model_dir`.

    Raises:
        ModelError: the model or the checkpoint cannot be used.
        OptionError: a part to train is not there, or several devices do not go with an option or the model.
    """
    check(job)
    strategy = strategy_of(job.world)
    with modeling.precision_of(job.config), strategy.scope():
        model = modeling.load(job.source)
        parts.choose(model, job.config)
        model.recompute = job.config.gradient_checkpointing
        optimizer = create_optimizer(job.schedule, job.config, decay_all=job.options.decay_all)
        if job.config.has_bfloat16_weights:
            masters.fill(model, optimizer, job.source)
        if job.resume_from is not None:
            checkpoints.restore(job.resume_from, model, optimizer)
        model.compile(optimizer=optimizer, loss=NextToken(), jit_compile=_compiles(job, model))
        if job.first_step < job.schedule.total_steps:
            _fit(model, job, strategy)
        elif (blocks := job.validation) is not None:
            size = job.config.per_device_eval_batch_size
            job.evaluate(job.first_step, lambda: score(model, blocks, size, job.report))
        if not take_last_model(job):
            modeling.save(model, job.model_dir)


def _fit(model: Decoder, job: TrainingJob, strategy: tf.distribute.Strategy) -> None:
    """One Keras epoch from here to the end, because a resumed training may begin within one of the schedule's."""
    if job.world.size == 1:
        dataset = training_dataset(job.train, job.schedule, start_step=job.first_step)
        step_in_chunks(model).fit(dataset, shuffle=False, verbose=0, callbacks=_callbacks(job))
        return
    shared = shared_dataset(job.train, job.schedule, job.first_step, Together(strategy))
    steps = job.schedule.total_steps - job.first_step
    reduce_steps(model).fit(shared, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=_callbacks(job))


def _compiles(job: TrainingJob, model: Decoder) -> bool:
    """Whether to compile with XLA: if asked to, or where the steps that are left win back the seconds it takes."""
    if job.world.size > 1:
        return False
    if job.options.jit_compile is not None:
        return bool(job.options.jit_compile)
    blocks = (job.schedule.total_steps - job.first_step) * job.schedule.step_blocks
    return 6.0 * model.count_params() * blocks * job.train.shape[1] > PAYS_FROM


def _callbacks(job: TrainingJob) -> list[keras.callbacks.Callback]:
    """In the order in which they act at a step."""
    callbacks: list[keras.callbacks.Callback] = [StepSeeds(job.schedule), StepReport(job.schedule, job.report)]
    if job.validation is not None:
        size = job.config.per_device_eval_batch_size
        callbacks.append(Evaluation(job.schedule, job.validation, size, job.report, job=job))
    return [*callbacks, Checkpoints(job)]
