"""Trains with transformers' Trainer, by the schedule."""

from transformers import PrinterCallback

from clm_core.backend import TrainingJob
from clm_pt import checkpoints
from clm_pt.arguments import own_environment
from clm_pt.callbacks import Clipping, LoggingSteps, Seeding
from clm_pt.guide import GuideTrainer
from clm_pt.modeling import save
from clm_pt.trainer import ScheduledTrainer


@own_environment()
def train(job: TrainingJob) -> None:
    """Train, and write the model.

    Raises:
        ModelError: the model or the checkpoint cannot be loaded.
        OptionError: the hardware does not support an option, or the training was started as several processes.
        OutputError: the weights on disk are not those of the model.
    """
    trainer = create_trainer(job)
    trainer.evaluate_if_due()
    if job.first_step < job.schedule.total_steps:
        with checkpoints.readable(job, trainer) as checkpoint:
            trainer.train(resume_from_checkpoint=checkpoint)
    with trainer.own_cache():
        save(trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False), job.model_dir)


@own_environment()
def create_trainer(job: TrainingJob) -> ScheduledTrainer:
    """The Trainer of a job, ready for `train()`.

    Raises:
        ModelError: the model cannot be loaded.
        OptionError: the hardware does not support an option, or the training was started as several processes.
    """
    trainer = GuideTrainer(job) if job.options.guide else ScheduledTrainer(job)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(LoggingSteps)
    if not job.options.guide:
        trainer.add_callback(Seeding(job.schedule))
        trainer.add_callback(Clipping(trainer))
    return trainer
