"""The optimizer of a training for Keras: its schedule, and transformers' AdamW with the steps of PyTorch's."""

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
import transformers

from clm_core.config import OptimizationOptions
from clm_core.errors import OptionError
from clm_core.models.decay import decays
from clm_core.models.parts import relative_rate
from clm_core.optimizer import is_adamw
from clm_core.schedule import Schedule
from clm_tf.optimizers import DefinedOptimizer, StepOptimizer, correction, pytorch_name, whole


def create_optimizer(
    schedule: Schedule, config: OptimizationOptions, *, decay_all: bool = False, embeddings: Collection[str] = ()
) -> StepOptimizer:
    """The optimizer of a training, for `model.compile`; with `decay_all`, norms and biases decay like other weights.

    Where `config` has an `embedding_learning_rate`, it is for `embeddings`: `clm_tf.parts.embeddings(model)`.

    Raises:
        OptionError: it has one, and there are none.
    """
    if config.embedding_learning_rate is not None and not embeddings:
        raise OptionError("embedding_learning_rate: say which the embeddings are: embeddings=parts.embeddings(model)")
    rates = {} if config.embedding_learning_rate is None else dict.fromkeys(embeddings, relative_rate(config))
    own: dict[str, Any] = {"max_grad_norm": config.max_grad_norm, "schedule": schedule, "rates": rates}
    if not is_adamw(config.optim):
        return DefinedOptimizer(ScheduledLearningRate(schedule), config, decay_all=decay_all, **own)
    return AdamWeightDecay(
        learning_rate=ScheduledLearningRate(schedule),
        beta_1=config.adam_beta1,
        beta_2=config.adam_beta2,
        epsilon=config.adam_epsilon,
        weight_decay_rate=config.weight_decay,
        include_in_weight_decay=[""] if decay_all else None,
        **own,
    )


class ScheduledLearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """`Schedule.learning_rates` for Keras."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        self._rates = np.append(schedule.learning_rates(), schedule.learning_rate_at(schedule.total_steps))

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """The learning rate of the step after `step` steps, float32."""
        step = tf.minimum(tf.cast(step, tf.int64), self.schedule.total_steps)  # Keras also asks after the last.
        return tf.gather(tf.constant(self._rates, tf.float32), step)

    def get_config(self) -> dict[str, Any]:
        """The configuration that Keras stores."""
        return {"schedule": dataclasses.asdict(self.schedule)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ScheduledLearningRate":
        """The inverse of `get_config`."""
        return cls(Schedule(**config["schedule"]))


class AdamWeightDecay(StepOptimizer, transformers.AdamWeightDecay):
    """transformers' optimizer with PyTorch's epsilon, clm's rule of what decays, and clipping.

    The state is `iterations`, the slots m and v, and how many updates a variable has missed. A variable that never got
    a gradient has no slots, and is left as it is.
    """

    def decays(self, variable: tf.Variable) -> bool:
        """Whether the decay is for this variable: by the core's rule, or by patterns, as in transformers' class."""
        if self._include_in_weight_decay or self._exclude_from_weight_decay:
            return bool(self._do_use_weight_decay(whole(variable).name))
        return self.weight_decay_rate != 0 and decays(pytorch_name(variable), len(variable.shape))

    def get_config(self) -> dict[str, Any]:
        """The configuration that Keras stores."""
        return {**super().get_config(), **self.settings()}

    def _prepare_local(self, var_device: str, var_dtype: tf.DType, apply_state: dict[Any, Any]) -> None:
        """Correct the biases of the moments here, once for all variables."""
        super()._prepare_local(var_device, var_dtype, apply_state)
        state = apply_state[(var_device, var_dtype)]
        state["uncorrected"] = state["lr_t"]
        state.update(self._corrected(state, self.iterations + 1))

    def _resource_apply_dense(self, grad: tf.Tensor, var: tf.Variable, apply_state: dict[Any, Any]) -> Any:
        """Correct the moments of a variable that has missed updates by its own number of them, as PyTorch does.

        One of `rates` has another learning rate.
        """
        key = (var.device, var.dtype.base_dtype)
        if self.missed_by(var):
            corrected = self._corrected(apply_state[key], self.update_of(var))
            apply_state = {**apply_state, key: {**apply_state[key], **corrected}}
        if self.rates and (rate := self.rates.get(pytorch_name(var))):
            state = apply_state[key]
            scaled = {name: state[name] * rate for name in ("lr_t", "uncorrected")}
            apply_state = {**apply_state, key: {**state, **scaled}}
        return super()._resource_apply_dense(grad, var, apply_state)

    def _corrected(self, state: dict[str, tf.Tensor], update: tf.Tensor) -> dict[str, tf.Tensor]:
        """What makes TensorFlow's operation, which is left no correction of its own, compute PyTorch's update.

        PyTorch divides by sqrt(v) / sqrt(1 - beta2^t) + epsilon, Keras by sqrt(v) + epsilon with the correction in the
        step size; they are equal if Keras' epsilon is epsilon * sqrt(1 - beta2^t). In float32, 1 - beta2^t would lose
        up to 6e-5 of itself in the first updates, more or less of it from device to device.
        """
        first, second = (correction(state[beta], update) for beta in ("beta_1_t", "beta_2_t"))
        root = tf.sqrt(second)
        none = tf.zeros_like(state["lr_t"])
        rate, epsilon = (
            state["uncorrected"] * tf.cast(root / first, none.dtype),
            self.epsilon * tf.cast(root, none.dtype),
        )
        return {"beta_1_power": none, "beta_2_power": none, "lr_t": rate, "epsilon": epsilon}

    def _decay_weights_op(self, var: tf.Variable, learning_rate: tf.Tensor, apply_state: dict[Any, Any]) -> Any:
        if not self.decays(var):
            return tf.no_op()
        rate = apply_state[(var.device, var.dtype.base_dtype)]["uncorrected"]
        return super()._decay_weights_op(var, rate, apply_state)
