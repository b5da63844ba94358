"""AdamW and the loss, for `model.compile`: PyTorch's numbers, the schedule's rates, batches weighted by rows."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from clm_core.config import OptimizationOptions
from clm_core.errors import OptionError
from clm_core.models.decay import decays
from clm_core.models.parts import relative_rate
from clm_core.optimizer import adamw
from clm_core.schedule import Schedule
from clm_tf.keras3.parts import is_embeddings


def create_optimizer(schedule: Schedule, config: OptimizationOptions, *, decay_all: bool = False) -> "AdamW":
    """The optimizer of a training, for `model.compile`; with `decay_all`, norms and biases decay like other weights."""
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(OptimizationOptions)}
    return AdamW(ScheduledLearningRate(schedule), OptimizationOptions(**settings), schedule, decay_all=decay_all)


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


@keras.saving.register_keras_serializable("clm")
class AdamW(keras.optimizers.Optimizer):
    """`clm_core.optimizer.adamw` for Keras, after clipping, on the gradients of a whole step.

    The gradients of the batches of a step are averaged, each weighted with its rows, and one update is made at the end
    of the step; `iterations` counts updates. Between two steps, the state is that and the moments of each variable.
    """

    def __init__(
        self,
        learning_rate: Any,
        config: OptimizationOptions,
        schedule: Schedule,
        *,
        decay_all: bool = False,
        name: str = "adamw",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.config, self.schedule, self.decay_all = config, schedule, decay_all
        self._relative_rate = relative_rate(config)
        shares = [_shares(schedule, schedule.rows_of_step(step)) for step in (0, schedule.steps_per_epoch - 1)]
        self._shares = np.array([row + [0.0] * (len(shares[0]) - len(row)) for row in shares], np.float32)
        self._batches = np.array([len(row) for row in shares], np.int32)

    def build(self, variables: Sequence[Any]) -> None:
        """Create the state for these variables.

        Raises:
            OptionError: they are not float32.
        """
        if self.built:
            return
        for variable in variables:
            if variable.dtype != "float32":
                raise OptionError(
                    f"{variable.path} is {variable.dtype}, in which an update of AdamW rounds to nothing: use the "
                    f"dtype policy mixed_{variable.dtype}, in which weights are float32"
                )
        super().build(variables)
        self.first = [self.add_variable_from_reference(variable, name="m") for variable in variables]
        self.second = [self.add_variable_from_reference(variable, name="v") for variable in variables]
        self.last_grad_norm = self.add_variable((), initializer="zeros", dtype="float32", name="last_grad_norm")
        if self.schedule.accumulation > 1:
            self._sums = [self.add_variable_from_reference(variable, name="sum") for variable in variables]
            self._batch = self.add_variable((), initializer="zeros", dtype="int32", name="batch_of_step")

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Take the gradients of a batch's mean loss, and update the variables if it is the last batch of a step."""
        variables = list(self._trainable_variables if trainable_variables is None else trainable_variables)
        self.build(variables)
        pairs = [(tf.convert_to_tensor(grad), variable) for grad, variable in zip(grads, variables, strict=True)]
        if self.schedule.accumulation == 1:
            self._update(pairs)
            return
        sums = [self._sums[self._get_variable_index(variable)] for variable in variables]
        share, is_last = self._place_in_step()
        totals = [total + share * grad for total, (grad, _) in zip(sums, pairs, strict=True)]

        def update() -> None:
            self._update(list(zip(totals, variables, strict=True)))
            for total in sums:
                total.assign(ops.zeros_like(total))
            self._batch.assign(0)

        def wait() -> None:
            for total, new in zip(sums, totals, strict=True):
                total.assign(new)
            self._batch.assign_add(1)

        ops.cond(is_last, update, wait)

    def update_by(self, grads: Sequence[Any], variables: Sequence[Any]) -> None:
        """Update the variables by the gradients of a step's mean loss, which were added up elsewhere."""
        self.build(list(variables))
        self._update(list(zip(grads, variables, strict=True)))

    def moments_of(self, variable: Any) -> tuple[Any, Any]:
        """The two moments of a variable."""
        index = self._get_variable_index(variable)
        return self.first[index], self.second[index]

    def get_config(self) -> dict[str, Any]:
        """The configuration that Keras stores."""
        own = {"config": dataclasses.asdict(self.config), "schedule": dataclasses.asdict(self.schedule)}
        rate = keras.optimizers.schedules.serialize(self._learning_rate)
        return {"name": self.name, "learning_rate": rate, "decay_all": self.decay_all, **own}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "AdamW":
        """The inverse of `get_config`."""
        config = dict(config)
        rate = keras.optimizers.schedules.deserialize(config.pop("learning_rate"), custom_objects)
        options, schedule = OptimizationOptions(**config.pop("config")), Schedule(**config.pop("schedule"))
        return cls(rate, options, schedule, **config)

    def _place_in_step(self) -> tuple[Any, Any]:
        """The share of the batch's rows in those of its step, and whether the step ends with it."""
        ends_epoch = ops.cast(ops.equal((self.iterations + 1) % self.schedule.steps_per_epoch, 0), "int32")
        batch = ops.convert_to_tensor(self._batch)
        shares = ops.take(ops.convert_to_tensor(self._shares), ends_epoch, axis=0)
        return ops.take(shares, batch), ops.equal(batch + 1, ops.take(ops.convert_to_tensor(self._batches), ends_epoch))

    def _update(self, pairs: Sequence[tuple[Any, Any]]) -> None:
        # Sums of squares, as `torch.nn.utils.clip_grad_norm_` takes them; the norm before it is kept for the report.
        norm = ops.sqrt(sum(ops.sum(ops.square(grad)) for grad, _ in pairs))
        self.last_grad_norm.assign(norm)
        limit = self.config.max_grad_norm
        factor = ops.minimum(1.0, limit / (norm + 1e-6)) if limit else 1.0
        rate, update = ops.cast(self.learning_rate, "float32"), ops.cast(self.iterations + 1, "float32")
        corrections = tuple(_correction(beta, update) for beta in (self.config.adam_beta1, self.config.adam_beta2))
        for grad, variable in pairs:
            first, second = self.moments_of(variable)
            new = adamw(
                *(ops.convert_to_tensor(variable), grad * factor),
                *(ops.convert_to_tensor(first), ops.convert_to_tensor(second)),
                learning_rate=rate * self._relative_rate if is_embeddings(variable) else rate,
                corrections=corrections,
                config=self.config,
                decays=self.decay_all or decays(variable.name, len(variable.shape)),
            )
            for kept, value in zip((variable, first, second), new, strict=True):
                kept.assign(value)
        self._iterations.assign_add(1)


def _shares(schedule: Schedule, rows: int) -> list[float]:
    """The share of each batch in a step of so many rows."""
    return [min(schedule.batch_size, rows - start) / rows for start in range(0, rows, schedule.batch_size)]


def _correction(beta: float, update: Any) -> Any:
    """1 - beta ** update, without what float32 would lose of it in the first updates."""
    return -ops.expm1(update * math.log(beta)) if beta else 1.0
