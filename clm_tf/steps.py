"""What callbacks of either Keras do at a step: seed, report, evaluate, save. Each package mixes them into its own."""

import math
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clm_core.backend import Blocks, Evaluated, Report, Score, StepDone, TrainingJob
from clm_core.checkpoints import save
from clm_core.schedule import Schedule
from clm_tf.devices import peak_of_accelerator


class OnSteps:
    """Calls `on_step_end(step)` after each step; Keras itself counts batches."""

    model: Any

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start at the optimizer's count, which is not 0 in a resumed training."""
        self.step = self._count()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare the optimizer's count with the last one."""
        step = self._count()
        if step != self.step:
            self.step = step
            self.on_step_end(step)

    def on_step_end(self, step: int) -> None:
        """What to do after step number `step`."""
        raise NotImplementedError

    def _count(self) -> int:
        return int(self.model.optimizer.iterations.numpy())  # A strategy's variable is no number by itself.


class SeedsSteps(OnSteps):
    """Seeds the dropout of each step before it, so that it does not depend on what was drawn before."""

    seeder: Callable[[Any], Callable[[int], None]]
    """Makes the function that seeds the dropout of a model."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self._schedule = schedule

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Seed the first step."""
        super().on_train_begin(logs)
        self._seed = self.seeder(self.model)
        self.on_step_end(self.step)

    def on_step_end(self, step: int) -> None:
        """Seed the step that follows; all of its batches draw on from there."""
        self._seed(self._schedule.seed_at(step))


class ReportsSteps(OnSteps):
    """Reports each step, with its loss, what the model adds to it, if it does, and the norm of its gradient.

    The norm is known where the optimizer is what `create_optimizer` returns for the same schedule.
    """

    def __init__(self, schedule: Schedule, report: Report) -> None:
        super().__init__()
        self._schedule = schedule
        self._report = report
        self._batches: list[tuple[int, float]] = []
        self._added: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Make Keras forget the batches before: its loss is a running mean over an epoch."""
        self.model.reset_metrics()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Keep the batch's loss until its step is over."""
        added = [float(logs["auxiliary_loss"])] if "auxiliary_loss" in logs else []
        self._batches.append((self._rows_of_batch(), float(logs["loss"]) - math.fsum(added)))
        self._added += added
        super().on_train_batch_end(batch, logs)

    def on_step_end(self, step: int) -> None:
        """Report."""
        norm = getattr(self.model.optimizer, "last_grad_norm", None)
        norm = None if norm is None else float(norm.numpy())
        added = self._mean(self._added) if self._added else None
        loss = self._mean([loss for _, loss in self._batches])
        peak = peak_of_accelerator()
        self._report(StepDone(step=step, loss=loss, grad_norm=norm, auxiliary_loss=added, peak_memory_bytes=peak))
        self._batches.clear()
        self._added.clear()

    def _rows_of_batch(self) -> int:
        """Of the batch that follows those kept: all but the last of a step are full."""
        schedule = self._schedule
        return min(schedule.batch_size, schedule.rows_of_step(self.step) - len(self._batches) * schedule.batch_size)

    def _mean(self, losses: list[float]) -> float:
        """Of the batches of the step, by their rows."""
        rows = [rows for rows, _ in self._batches]
        return math.fsum(map(operator.mul, rows, losses)) / sum(rows)


class EvaluatesSteps(OnSteps):
    """Evaluates where `schedule.evaluates_at(step)`, before the first step too; or where a `job` says so."""

    scorer: Callable[[Any], Callable[[Blocks, int, Report], Score]]
    """Makes the function that scores a model."""

    def __init__(
        self, schedule: Schedule, blocks: Blocks, batch_size: int, report: Report, *, job: TrainingJob | None = None
    ) -> None:
        super().__init__()
        self._schedule = schedule
        self._blocks = blocks
        self._batch_size = batch_size
        self._report = report
        self._job = job

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Score what the training starts from, unless it is resumed and the job has that score."""
        super().on_train_begin(logs)
        self._scorer = self.scorer(self.model)
        if self.step == 0 or self._job:
            self.on_step_end(self.step)

    def on_step_end(self, step: int) -> None:
        """Evaluate at this step if it is time."""
        if self._job:
            self._job.evaluate(step, self._score)
        elif self._schedule.evaluates_at(step):
            self._report(Evaluated(step=step, score=self._score()))

    def _score(self) -> Score:
        return self._scorer(self._blocks, self._batch_size, self._report)


class SavesSteps(OnSteps):
    """Writes a checkpoint where `job.saves_at(step)`."""

    write: Callable[[Path, Any, Any], None]
    """Writes a model and its optimizer into a folder."""

    def __init__(self, job: TrainingJob) -> None:
        super().__init__()
        self._job = job

    def on_step_end(self, step: int) -> None:
        """Save at this step if it is time."""
        if self._job.saves_at(step):
            self.save(step)

    def save(self, step: int) -> None:
        """Write the checkpoint of this step."""
        save(self._job, step, self._write)

    def _write(self, folder: Path) -> None:
        self.write(folder, self.model, self.model.optimizer)
