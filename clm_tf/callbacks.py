"""Callbacks of tf_keras that make `model.fit` seed, report, evaluate and save as the schedule says.

At a step they act in the order in which `fit` gets them.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import tf_keras as keras

from clm_core.backend import Blocks, Event, Report, Saved, Score
from clm_core.checkpoints import complete, save
from clm_core.stopping import Stop
from clm_tf import checkpoints
from clm_tf.accumulation import WISH
from clm_tf.modeling import seeder
from clm_tf.scoring import scorer
from clm_tf.steps import EvaluatesSteps, OnSteps, ReportsSteps, SavesSteps, SeedsSteps
from clm_tf.together import Together


class StepCallback(OnSteps, keras.callbacks.Callback):
    """Calls `on_step_end(step)` after each step; Keras itself counts batches."""


class StepSeeds(SeedsSteps, StepCallback):
    """Seeds the dropout of each step by the schedule's seed and the step."""

    seeder = staticmethod(seeder)


class StepReport(ReportsSteps, StepCallback):
    """Reports each step, with its loss and the norm of its gradient."""


class Agreement(StepCallback):
    """Tells the training of each process what any process has been asked, before the step is reported."""

    def __init__(self, stop: Stop) -> None:
        super().__init__()
        self._stop = stop

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Take over what the step has found out."""
        self._stop.agree(int(logs[WISH]))


class Evaluation(EvaluatesSteps, StepCallback):
    """Evaluates where `schedule.evaluates_at(step)`, before the first step too; or where a `job` says so."""

    def scorer(self, model: Any) -> Callable[[Blocks, int, Report], Score]:
        """As `clm_tf.scoring.scorer`."""
        return scorer(model, stop=self._job.stop if self._job else None)


class Checkpoints(SavesSteps, StepCallback):
    """Writes a checkpoint where `job.saves_at(step)`; of several processes, the one that leads does, for all."""

    write = staticmethod(checkpoints.write)

    def save(self, step: int) -> None:
        """Write it, and wait for all, so that none continues or ends before it is there."""
        together = Together(self.model.distribute_strategy)

        def report(event: Event) -> None:
            together.meet()
            if self._job.stop.requested:
                together.part()
            self._job.report(event)

        if together.world.leads:
            save(replace(self._job, report=report), step, self._write)
        else:
            report(Saved(step=step, path=complete(self._job, step, backend=self._job.backend)))
