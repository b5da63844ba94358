"""Callbacks of Keras 3 that make `model.fit` seed, report, evaluate and save as the schedule says.

At a step they act in the order in which `fit` gets them.
"""

import keras

from clm_tf.keras3 import checkpoints
from clm_tf.keras3.modeling import seeder
from clm_tf.keras3.scoring import scorer
from clm_tf.steps import EvaluatesSteps, OnSteps, ReportsSteps, SavesSteps, SeedsSteps


class StepCallback(OnSteps, keras.callbacks.Callback):
    """Calls `on_step_end(step)` after each step; Keras itself counts batches."""


class StepSeeds(SeedsSteps, StepCallback):
    """Seeds the dropout of each step by the schedule's seed and the step."""

    seeder = staticmethod(seeder)


class StepReport(ReportsSteps, StepCallback):
    """Reports each step, with its loss and the norm of its gradient."""


class Evaluation(EvaluatesSteps, StepCallback):
    """Evaluates where `schedule.evaluates_at(step)`, before the first step too; or where a `job` says so."""

    scorer = staticmethod(scorer)


class Checkpoints(SavesSteps, StepCallback):
    """Writes a checkpoint where `job.saves_at(step)`."""

    write = staticmethod(checkpoints.write)
