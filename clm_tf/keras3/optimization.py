"""The optimizer of a training and the loss, for `model.compile`: the schedule's rates, the tokens after the first."""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from clm_core.config import OptimizationOptions
from clm_core.optimizer import ADAFACTOR, MUON, is_adamw
from clm_core.schedule import Schedule
from clm_tf.keras3.optimizers import Adafactor, AdamW, DefinedOptimizer, Muon

OPTIMIZERS: dict[str, type[DefinedOptimizer]] = {ADAFACTOR: Adafactor, MUON: Muon}
"""By the values of `optim`, but for those that mean AdamW."""


def create_optimizer(schedule: Schedule, config: OptimizationOptions, *, decay_all: bool = False) -> DefinedOptimizer:
    """The optimizer of a training, for `model.compile`; with `decay_all`, norms and biases decay like other weights."""
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(OptimizationOptions)}
    kind = AdamW if is_adamw(config.optim) else OPTIMIZERS[config.optim]
    return kind(ScheduledLearningRate(schedule), OptimizationOptions(**settings), schedule, decay_all=decay_all)


@keras.saving.register_keras_serializable("clm")
class NextToken(keras.losses.Loss):
    """The mean negative log likelihood of the tokens after the first, in nats; labels are the token ids themselves."""

    def __init__(self, name: str = "next_token", reduction: str = "sum_over_batch_size", **kwargs: Any) -> None:
        super().__init__(name=name, reduction=reduction, **kwargs)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Of each token: float32 of shape (rows, length - 1)."""
        logits = ops.cast(y_pred[:, :-1], "float32")
        return ops.sparse_categorical_crossentropy(y_true[:, 1:], logits, from_logits=True)


@keras.saving.register_keras_serializable("clm")
class ScheduledLearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """`Schedule.learning_rates` for Keras."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        self._rates = np.append(schedule.learning_rates(), schedule.learning_rate_at(schedule.total_steps))

    def __call__(self, step: Any) -> Any:
        """The learning rate of the step after `step` steps, float32."""
        step = ops.minimum(ops.cast(step, "int32"), self.schedule.total_steps)  # Keras also asks after the last.
        return ops.take(ops.convert_to_tensor(self._rates, "float32"), step)

    def get_config(self) -> dict[str, Any]:
        """The configuration that Keras stores."""
        return {"schedule": dataclasses.asdict(self.schedule)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ScheduledLearningRate":
        """The inverse of `get_config`."""
        return cls(Schedule(**config["schedule"]))
