"""Trains a TensorFlow model with tf_keras: compile, fit, and callbacks that follow the schedule."""

import tensorflow as tf
import tf_keras as keras
from transformers import TFPreTrainedModel

from clm_core.backend import TrainingJob
from clm_core.checkpoints import take_last_model
from clm_tf import checkpoints, guide, modeling, parts
from clm_tf.accumulation import share_steps
from clm_tf.callbacks import Agreement, Checkpoints, Evaluation, StepReport, StepSeeds
from clm_tf.checks import check
from clm_tf.datasets import shared_dataset, training_dataset
from clm_tf.devices import strategy_of
from clm_tf.optimization import create_optimizer
from clm_tf.scoring import scorer
from clm_tf.together import Together, with_others


def train(job: TrainingJob) -> None:
    """Train, from the beginning or from `job.resume_from`, and write the model to `job.model_dir`.

    Raises:
        ModelError: the model or the checkpoint cannot be used.
        OptionError: options do not go together, or a part to train is not there.
    """
    check(job)
    if job.options.guide:
        guide.train(job)
        return
    with with_others(job.world), modeling.precision(job.config.bf16), strategy_of(job.world, job.stop).scope():
        together = Together(tf.distribute.get_strategy())
        together.check_same(job.identity())
        model = modeling.load(job.source)
        parts.choose(model, job.config)
        optimizer = create_optimizer(
            job.schedule, job.config, decay_all=job.options.decay_all, embeddings=parts.embeddings(model)
        )
        if job.resume_from is not None:
            checkpoints.restore(job.resume_from, model, optimizer)
        model.compile(optimizer=optimizer, jit_compile=job.options.jit_compile)
        if job.first_step < job.schedule.total_steps:
            _fit(model, job, together)
        elif (blocks := job.validation) is not None:
            score = scorer(model, stop=job.stop)
            job.evaluate(job.first_step, lambda: score(blocks, job.config.per_device_eval_batch_size, job.report))
        if not take_last_model(job) and job.world.leads:
            modeling.save(model, job.model_dir)
        together.meet()


def _fit(model: TFPreTrainedModel, job: TrainingJob, together: Together) -> None:
    """One Keras epoch from here to the end, because a resumed training may begin within one of the schedule's."""
    callbacks = _callbacks(job)
    if job.world.size == 1:
        dataset = training_dataset(job.train, job.schedule, start_step=job.first_step)
        model.fit(dataset, verbose=0, callbacks=callbacks)
        return
    share_steps(model, job.stop)
    shared = shared_dataset(job.train, job.schedule, job.first_step, together)
    model.fit(shared, steps_per_epoch=job.schedule.total_steps - job.first_step, verbose=0, callbacks=callbacks)


def _callbacks(job: TrainingJob) -> list[keras.callbacks.Callback]:
    """In the order in which they act at a step."""
    callbacks: list[keras.callbacks.Callback] = [Agreement(job.stop)] if job.stop.together else []
    callbacks += [StepSeeds(job.schedule), StepReport(job.schedule, job.report)]
    if job.validation is not None:
        size = job.config.per_device_eval_batch_size
        callbacks.append(Evaluation(job.schedule, job.validation, size, job.report, job=job))
    return [*callbacks, Checkpoints(job)]
