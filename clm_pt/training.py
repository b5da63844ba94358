"""Trains with transformers' Trainer, by the schedule."""

from transformers import PrinterCallback

from clm_core.backend import TrainingJob
from clm_core.checkpoints import chosen_in, take_last_model
from clm_pt import checkpoints
from clm_pt.arguments import own_environment
from clm_pt.callbacks import Clipping, LoggingSteps, Mastering, Reporting, Seeding
from clm_pt.checks import check
from clm_pt.guide import GuideTrainer
from clm_pt.memory import kept_memory
from clm_pt.processes import together, wait_for_all
from clm_pt.products import fastest_products
from clm_pt.trainer import ScheduledTrainer

PRODUCTS = "matrix products"
"""What a training calls the way in which it computes them."""


@own_environment()
def train(job: TrainingJob) -> None:
    """Train, and write the model.

    Raises:
        ModelError: the model or the checkpoint cannot be loaded.
        OptionError: options do not go together, the hardware does not support one, or there are other processes than
            the job is for.
        OutputError: the weights on disk are not those of the model.
        TrainingError: another of the processes that train ended.
    """
    before = chosen_in(job.resume_from).get(PRODUCTS) if job.resume_from else None
    with together("train"), kept_memory(job.options.keep_memory), fastest_products(before) as products:
        job.chosen[PRODUCTS] = products
        trainer = create_trainer(job)
        trainer.evaluate_if_due()
        if job.first_step < job.schedule.total_steps:
            with checkpoints.readable(job, trainer) as checkpoint:
                trainer.train(resume_from_checkpoint=checkpoint)
        if not take_last_model(job):
            trainer.write_model(job.model_dir)
        wait_for_all()


@own_environment()
def create_trainer(job: TrainingJob) -> ScheduledTrainer:
    """The Trainer of a job, ready for `train()`; where there are other processes, it has met them.

    Raises:
        ModelError: the model cannot be loaded.
        OptionError: options do not go together, the hardware does not support one, or there are other processes than
            the job is for.
    """
    check(job)
    trainer = GuideTrainer(job) if job.options.guide else ScheduledTrainer(job)
    trainer.remove_callback(PrinterCallback)
    if job.options.guide:
        trainer.add_callback(LoggingSteps)
    else:
        trainer.add_callback(Seeding(job.schedule, job.world.rank))
        if trainer.masters:
            trainer.add_callback(Mastering(trainer.masters))
        trainer.add_callback(Clipping(trainer))
        trainer.add_callback(Reporting(trainer))
    return trainer
