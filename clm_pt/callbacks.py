"""Callbacks that make Trainer seed, clip and report each step, as the options and the schedule say."""

from typing import Any

import torch
from transformers import Trainer, TrainerCallback

from clm_core.schedule import Schedule
from clm_pt.masters import Masters
from clm_pt.optimization import clip


class Seeding(TrainerCallback):
    """Seeds what each step draws at random, before its first batch; all of its batches draw on from there."""

    def __init__(self, schedule: Schedule, rank: int = 0) -> None:
        self._schedule, self._rank = schedule, rank

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Seed PyTorch, from which alone the models of texts draw."""
        torch.manual_seed(self._schedule.seed_at(state.global_step, self._rank))


class Mastering(TrainerCallback):
    """Puts the masters of bfloat16 weights in place for the update of a step, before its gradient is clipped."""

    def __init__(self, masters: Masters) -> None:
        self._masters = masters

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put them in place."""
        self._masters.take_place()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put them aside."""
        self._masters.give_place()


class Clipping(TrainerCallback):
    """Clips the gradient of a step when it is whole, and has the trainer add up what processes have of the step."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Clip."""
        trainer = self._trainer
        steps, max_norm = trainer.steps, trainer.job.config.max_grad_norm
        steps.grad_norm = clip(trainer.model.parameters(), max_norm, steps.add_up)


class Reporting(TrainerCallback):
    """Reports each step to the job, which says whether to evaluate and save then; Trainer logs those of the schedule.

    To log one, all processes exchange what is known already.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report."""
        self._trainer.report_step()


class LoggingSteps(TrainerCallback):
    """Makes Trainer log each step, because only then does it tell the norm of the gradient that it clips."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log."""
        control.should_log = True
