"""Callbacks that make Trainer clip, evaluate and save where the options and the schedule say."""

from typing import Any

from transformers import Trainer, TrainerCallback

from clm_core import checkpoints
from clm_core.backend import Saved, TrainingJob
from clm_pt.optimization import clip


class Clipping(TrainerCallback):
    """Clips the gradient of a step when it is whole, and tells the trainer its norm."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Clip."""
        self._trainer.grad_norm = clip(self._trainer.model.parameters(), self._trainer.job.config.max_grad_norm)


class FollowSchedule(TrainerCallback):
    """Tells Trainer when to evaluate and save, and the job what was saved."""

    def __init__(self, job: TrainingJob) -> None:
        self._job = job

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log each step; evaluate and save if it is time."""
        step, schedule = state.global_step, self._job.schedule
        control.should_log = True
        control.should_evaluate = schedule.evaluates_at(step) and self._job.validation is not None
        control.should_save = schedule.saves_at(step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint as whole, and report it."""
        folder = checkpoints.complete(self._job, state.global_step, backend="pt")
        self._job.report(Saved(step=state.global_step, path=folder))
