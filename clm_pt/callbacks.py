"""Callbacks that make Trainer seed, clip and report each step, as the options and the schedule say."""

from typing import Any

import torch
from transformers import Trainer, TrainerCallback

from clm_core.schedule import Schedule
from clm_pt.optimization import clip


class Seeding(TrainerCallback):
    """Seeds what each step draws at random, before its first batch; all of its batches draw on from there."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Seed PyTorch, from which alone the models of texts draw."""
        torch.manual_seed(self._schedule.seed_at(state.global_step))


class Clipping(TrainerCallback):
    """Clips the gradient of a step when it is whole, and tells the trainer its norm."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Clip."""
        self._trainer.grad_norm = clip(self._trainer.model.parameters(), self._trainer.job.config.max_grad_norm)


class LoggingSteps(TrainerCallback):
    """Makes Trainer log each step: `ScheduledTrainer.log` reports it, and says whether to evaluate and save then."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log."""
        control.should_log = True
