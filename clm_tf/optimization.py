"""AdamW for Keras with the steps of PyTorch's: decay, clipping, schedule."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
import transformers
from transformers.modeling_tf_pytorch_utils import convert_tf_weight_name_to_pt_weight_name

from clm_core.config import OptimizationOptions
from clm_core.errors import OptionError
from clm_core.models.decay import decays
from clm_core.models.parts import relative_rate
from clm_core.schedule import Schedule

Pairs = Iterable[tuple[Any, tf.Variable]]


def create_optimizer(
    schedule: Schedule, config: OptimizationOptions, *, decay_all: bool = False, embeddings: Collection[str] = ()
) -> "AdamWeightDecay":
    """The optimizer of a training, for `model.compile`; with `decay_all`, norms and biases decay like other weights.

    Where `config` has an `embedding_learning_rate`, it is for `embeddings`: `clm_tf.parts.embeddings(model)`.

    Raises:
        OptionError: it has one, and there are none.
    """
    if config.embedding_learning_rate is not None and not embeddings:
        raise OptionError("embedding_learning_rate: say which the embeddings are: embeddings=parts.embeddings(model)")
    return AdamWeightDecay(
        learning_rate=ScheduledLearningRate(schedule),
        beta_1=config.adam_beta1,
        beta_2=config.adam_beta2,
        epsilon=config.adam_epsilon,
        weight_decay_rate=config.weight_decay,
        include_in_weight_decay=[""] if decay_all else None,
        max_grad_norm=config.max_grad_norm,
        schedule=schedule,
        rates={} if config.embedding_learning_rate is None else dict.fromkeys(embeddings, relative_rate(config)),
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
    """transformers' optimizer with PyTorch's epsilon, clm's rule of what decays, and clipping.

    The state is `iterations`, the slots m and v, and how many updates a variable has missed. A variable that never got
    a gradient has no slots, and is left as it is.
    """

    def __init__(
        self,
        *args: Any,
        max_grad_norm: float = 0.0,
        schedule: Schedule | None = None,
        rates: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """`rates` has what the learning rate is multiplied by, for the variables that PyTorch would call so."""
        super().__init__(*args, **kwargs)
        self.rates = dict(rates or {})
        self.max_grad_norm = max_grad_norm
        self.schedule = schedule
        first = tf.VariableAggregation.ONLY_FIRST_REPLICA  # All have the same.
        self.last_grad_norm = tf.Variable(0.0, trainable=False, name="last_grad_norm", aggregation=first)
        self._missed: dict[str, int] = {}

    def apply_gradients(
        self, grads_and_vars: Pairs, name: str | None = None, experimental_aggregate_gradients: bool = True
    ) -> Any:
        """Clip the gradient of a step's mean loss, and update the variables.

        Under a strategy, it is the sum of what its devices have, which is clipped as one; or, without aggregation, what
        each of them has is that sum already.
        """
        # A tied embedding gets a sparse gradient as input and a dense one as output; as dense, both are one.
        pairs = [(tf.convert_to_tensor(grad), variable) for grad, variable in grads_and_vars if grad is not None]
        if experimental_aggregate_gradients:
            pairs = self._aggregate_gradients(pairs)
        return super().apply_gradients(self._clipped(pairs), name=name, experimental_aggregate_gradients=False)

    def decays(self, variable: tf.Variable) -> bool:
        """Whether the decay is for this variable: by the core's rule, or by patterns, as in transformers' class."""
        if self._include_in_weight_decay or self._exclude_from_weight_decay:
            return bool(self._do_use_weight_decay(_whole(variable).name))
        return self.weight_decay_rate != 0 and decays(_pytorch_name(variable), len(variable.shape))

    def moment(self, variable: tf.Variable, slot: str) -> tf.Variable | None:
        """The slot m or v of a variable; None as long as it got no gradient."""
        try:
            return self.get_slot(variable, slot)
        except KeyError:
            return None

    def updates_of(self, variable: tf.Variable) -> int:
        """How many updates a variable with slots has had."""
        return int(self.iterations.numpy()) - self._missed.get(_whole(variable)._unique_id, 0)

    def restore(self, step: int, updates: Sequence[tuple[tf.Variable, int]]) -> None:
        """Resume after `step` steps, with each variable's number of updates; the moments are set afterwards."""
        self._create_all_weights([variable for variable, count in updates if count])
        self.iterations.assign(step)
        self._missed = {_whole(variable)._unique_id: step - count for variable, count in updates if count != step}

    def get_config(self) -> dict[str, Any]:
        """The configuration that Keras stores."""
        schedule = self.schedule and dataclasses.asdict(self.schedule)
        return {**super().get_config(), "max_grad_norm": self.max_grad_norm, "schedule": schedule, "rates": self.rates}

    def _clipped(self, pairs: list[tuple[tf.Tensor, tf.Variable]]) -> list[tuple[tf.Tensor, tf.Variable]]:
        """As `torch.nn.utils.clip_grad_norm_` does it; the norm before is kept for the report."""
        gradients, variables = zip(*pairs, strict=True)
        norm = self.last_grad_norm.assign(tf.linalg.global_norm(gradients), read_value=True)
        if self.max_grad_norm:
            scale = tf.minimum(1.0, self.max_grad_norm / (norm + 1e-6))
            gradients = tuple(gradient * scale for gradient in gradients)
        return list(zip(gradients, variables, strict=True))

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
        if missed := self._missed.get(_whole(var)._unique_id, 0):
            corrected = self._corrected(apply_state[key], self.iterations + 1 - missed)
            apply_state = {**apply_state, key: {**apply_state[key], **corrected}}
        if self.rates and (rate := self.rates.get(_pytorch_name(var))):
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
        first, second = (_correction(state[beta], update) for beta in ("beta_1_t", "beta_2_t"))
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


def _correction(beta: tf.Tensor, update: tf.Tensor) -> tf.Tensor:
    """1 - beta ** update, float64."""
    return -tf.math.expm1(tf.cast(update, tf.float64) * tf.math.log(tf.cast(beta, tf.float64)))


def _pytorch_name(variable: tf.Variable) -> str:
    name, _ = convert_tf_weight_name_to_pt_weight_name(_whole(variable).name, tf_weight_shape=variable.shape)
    return str(name)


def _whole(variable: tf.Variable) -> tf.Variable:
    """The variable that a strategy keeps copies of, each on a device and under another name; without one, itself."""
    if isinstance(variable, tf.distribute.DistributedValues):
        return variable
    container = getattr(variable.handle, "_distributed_container", None)
    return variable if container is None else container()
