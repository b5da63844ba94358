"""AdamW for Keras with the steps of PyTorch's: decay, clipping, accumulation, schedule."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
import transformers
from transformers.modeling_tf_pytorch_utils import convert_tf_weight_name_to_pt_weight_name

from clm_core.config import OptimizationOptions
from clm_core.models.decay import decays
from clm_core.schedule import Schedule

Pairs = Iterable[tuple[Any, tf.Variable]]


def create_optimizer(schedule: Schedule, config: OptimizationOptions, *, decay_all: bool = False) -> "AdamWeightDecay":
    """The optimizer of a training, for `model.compile`; with `decay_all`, norms and biases decay like other weights."""
    return AdamWeightDecay(
        learning_rate=ScheduledLearningRate(schedule),
        beta_1=config.adam_beta1,
        beta_2=config.adam_beta2,
        epsilon=config.adam_epsilon,
        weight_decay_rate=config.weight_decay,
        include_in_weight_decay=[""] if decay_all else None,
        max_grad_norm=config.max_grad_norm,
        schedule=schedule,
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


class AdamWeightDecay(transformers.AdamWeightDecay):
    """transformers' optimizer with PyTorch's epsilon, clm's rule of what decays, clipping and accumulation.

    With a `schedule`, the gradients of the batches of a step are averaged, each weighted with its
    rows, and one update is made at the end of the step; `iterations` counts updates.

    The state is `iterations`, the slots m and v, and how many updates a variable has missed: between two steps there
    is no other. A variable that never got a gradient has no slots, and is left as it is.
    """

    def __init__(self, *args: Any, max_grad_norm: float = 0.0, schedule: Schedule | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.max_grad_norm = max_grad_norm
        self.schedule = schedule
        self.last_grad_norm = tf.Variable(0.0, trainable=False, name="last_grad_norm")
        self._batch_of_step = tf.Variable(0, dtype=tf.int64, trainable=False, name="batch_of_step")
        self._sums: list[tf.Variable] = []
        self._missed: dict[Any, int] = {}

    def apply_gradients(self, grads_and_vars: Pairs, name: str | None = None, **kwargs: Any) -> Any:
        """Take the gradient of a batch's mean loss, and update the variables if it is the last batch of a step."""
        # A tied embedding gets a sparse gradient as input and a dense one as output; as dense, both are one.
        pairs = [(tf.convert_to_tensor(grad), variable) for grad, variable in grads_and_vars if grad is not None]
        if self.schedule is None or self.schedule.accumulation == 1:
            return super().apply_gradients(self._clipped(pairs), name=name, **kwargs)
        variables = [variable for _, variable in pairs]
        with tf.init_scope():
            self._create_all_weights(variables)
            self._create_sums(variables)
        weight, is_last = self._place_in_step(self.schedule)
        added = [total.assign_add(weight * grad) for total, (grad, _) in zip(self._sums, pairs, strict=True)]

        def update() -> tf.Tensor:
            # Named, since super() finds its object in the first argument, and tf.cond calls this with none.
            super(AdamWeightDecay, self).apply_gradients(self._clipped(zip(self._sums, variables, strict=True)), name)
            for total in self._sums:
                total.assign(tf.zeros_like(total))
            return self._batch_of_step.assign(0)

        with tf.control_dependencies(added):
            return tf.cond(is_last, update, lambda: self._batch_of_step.assign_add(1))

    def decays(self, variable: tf.Variable) -> bool:
        """Whether the decay is for this variable: by the core's rule, or by patterns, as in transformers' class."""
        if self._include_in_weight_decay or self._exclude_from_weight_decay:
            return bool(self._do_use_weight_decay(variable.name))
        name, _ = convert_tf_weight_name_to_pt_weight_name(variable.name, tf_weight_shape=variable.shape)
        return self.weight_decay_rate != 0 and decays(name, len(variable.shape))

    def moment(self, variable: tf.Variable, slot: str) -> tf.Variable | None:
        """The slot m or v of a variable; None as long as it got no gradient."""
        try:
            return self.get_slot(variable, slot)
        except KeyError:
            return None

    def updates_of(self, variable: tf.Variable) -> int:
        """How many updates a variable with slots has had."""
        return int(self.iterations) - self._missed.get(variable.ref(), 0)

    def restore(self, step: int, updates: Sequence[tuple[tf.Variable, int]]) -> None:
        """Resume after `step` steps, with each variable's number of updates; the moments are set afterwards."""
        self._create_all_weights([variable for variable, count in updates if count])
        self.iterations.assign(step)
        self._missed = {variable.ref(): step - count for variable, count in updates if count != step}

    def get_config(self) -> dict[str, Any]:
        """The configuration that Keras stores."""
        schedule = self.schedule and dataclasses.asdict(self.schedule)
        return {**super().get_config(), "max_grad_norm": self.max_grad_norm, "schedule": schedule}

    def _create_sums(self, variables: list[tf.Variable]) -> None:
        if not self._sums:
            self._sums = [tf.Variable(tf.zeros(v.shape, tf.float32), trainable=False) for v in variables]

    def _place_in_step(self, schedule: Schedule) -> tuple[tf.Tensor, tf.Tensor]:
        """The weight of the batch's rows among those of its step, and whether the step ends with it."""
        first = self.iterations % schedule.steps_per_epoch * schedule.step_blocks
        rows_of_step = tf.minimum(schedule.blocks_per_epoch - first, schedule.step_blocks)
        done = self._batch_of_step * schedule.batch_size
        rows = tf.minimum(rows_of_step - done, schedule.batch_size)
        return tf.cast(rows / rows_of_step, tf.float32), done + rows == rows_of_step

    def _clipped(self, pairs: Pairs) -> list[tuple[tf.Tensor, tf.Variable]]:
        """As `torch.nn.utils.clip_grad_norm_` does it; the norm before is kept for the report."""
        gradients, variables = zip(*((tf.convert_to_tensor(grad), variable) for grad, variable in pairs), strict=True)
        norm = self.last_grad_norm.assign(tf.linalg.global_norm(gradients), read_value=True)
        if self.max_grad_norm:
            scale = tf.minimum(1.0, self.max_grad_norm / (norm + 1e-6))
            gradients = tuple(gradient * scale for gradient in gradients)
        return list(zip(gradients, variables, strict=True))

    def _prepare_local(self, var_device: str, var_dtype: tf.DType, apply_state: dict[Any, Any]) -> None:
        """Move epsilon outside the bias correction of the second moment, where PyTorch has it.

        PyTorch divides by sqrt(v) / sqrt(1 - beta2^t) + epsilon, Keras by sqrt(v) + epsilon with the
        correction in the step size; they are equal if Keras' epsilon is epsilon * sqrt(1 - beta2^t).
        """
        super()._prepare_local(var_device, var_dtype, apply_state)
        state = apply_state[(var_device, var_dtype)]
        state["epsilon"] *= tf.sqrt(1.0 - state["beta_2_power"])

    def _resource_apply_dense(self, grad: tf.Tensor, var: tf.Variable, apply_state: dict[Any, Any]) -> Any:
        """Correct the moments of a variable that has missed updates by its own number of them, as PyTorch does."""
        if missed := self._missed.get(var.ref(), 0):
            key = (var.device, var.dtype.base_dtype)
            apply_state = {**apply_state, key: self._corrected(apply_state[key], self.iterations + 1 - missed)}
        return super()._resource_apply_dense(grad, var, apply_state)

    def _corrected(self, state: dict[str, tf.Tensor], update: tf.Tensor) -> dict[str, tf.Tensor]:
        first, second = (tf.pow(state[beta], tf.cast(update, tf.float32)) for beta in ("beta_1_t", "beta_2_t"))
        epsilon = self.epsilon * tf.sqrt(1.0 - second)
        return {**state, "beta_1_power": first, "beta_2_power": second, "epsilon": epsilon}

    def _decay_weights_op(self, var: tf.Variable, learning_rate: tf.Tensor, apply_state: dict[Any, Any]) -> Any:
        return super()._decay_weights_op(var, learning_rate, apply_state) if self.decays(var) else tf.no_op()
