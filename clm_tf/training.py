"""Trains with Keras: compile, fit, and callbacks that follow the schedule."""

import tf_keras as keras

from clm_core.backend import TrainingJob
from clm_core.models.architectures import asks_for_more_loss
from clm_core.models.faults import cannot_add_to_loss
from clm_tf import checkpoints, guide, modeling
from clm_tf.callbacks import Checkpoints, Evaluation, StepReport, StepSeeds
from clm_tf.datasets import training_dataset
from clm_tf.optimization import create_optimizer
from clm_tf.scoring import score


def train(job: TrainingJob) -> None:
    """Train, from the beginning or from `job.resume_from`, and write the model to `job.model_dir`.

    Raises:
        ModelError: the model or the checkpoint cannot be used.
        OptionError: an option is none of the guide's, where that is followed to the letter.
    """
    if asked := asks_for_more_loss(job.model.architecture):
        raise cannot_add_to_loss(asked, "transformers' TensorFlow class")
    if job.options.guide:
        guide.train(job)
        return
    with modeling.precision(job.config.bf16):
        model = modeling.load(job.source)
        optimizer = create_optimizer(job.schedule, job.config, decay_all=job.options.decay_all)
        if job.resume_from is not None:
            checkpoints.restore(job.resume_from, model, optimizer)
        model.compile(optimizer=optimizer, jit_compile=job.options.jit_compile)
        if job.first_step < job.schedule.total_steps:
            # One Keras epoch from here to the end, because a resumed training may begin within one of the schedule's.
            dataset = training_dataset(job.train, job.schedule, start_step=job.first_step)
            model.fit(dataset, verbose=0, callbacks=_callbacks(job))
        elif (blocks := job.validation) is not None:
            size = job.config.per_device_eval_batch_size
            job.evaluate(job.first_step, lambda: score(model, blocks, size, job.report))
        modeling.save(model, job.model_dir)


def _callbacks(job: TrainingJob) -> list[keras.callbacks.Callback]:
    """In the order in which they act at a step."""
    callbacks: list[keras.callbacks.Callback] = [StepSeeds(job.schedule), StepReport(job.schedule, job.report)]
    if job.validation is not None:
        size = job.config.per_device_eval_batch_size
        callbacks.append(Evaluation(job.schedule, job.validation, size, job.report, job=job))
    return [*callbacks, Checkpoints(job)]
