"""What all optimizers of a step have in common, for Keras; and Adafactor and Muon, by the core's definitions."""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import tensorflow as tf
import tf_keras as keras
from tensorflow.experimental import numpy as tnp
from transformers.modeling_tf_pytorch_utils import convert_tf_weight_name_to_pt_weight_name

from clm_core.config import OptimizationOptions
from clm_core.models.decay import decays
from clm_core.optimizer import ADAMW, Rule, Step, clipping_ratio, rule_of
from clm_core.schedule import Schedule

Pairs = Iterable[tuple[Any, tf.Variable]]

OF_ADAPTER = re.compile(r"(\.lora_[AB])$")
"""How the name of an adapter's matrix ends."""


class StepOptimizer(keras.optimizers.legacy.Optimizer):
    """An optimizer of Keras that clips the gradient of a whole step, and counts the updates of each variable.

    The state is `iterations`, the slots of each variable, and how many updates it has missed. A variable that never got
    a gradient has no slots, and is left as it is.
    """

    optim = ADAMW
    """The value of the option."""

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

    def moment(self, variable: tf.Variable, slot: str) -> tf.Variable | None:
        """A slot of a variable, such as m or v; None as long as it got no gradient, or if it has no such slot."""
        try:
            return self.get_slot(variable, slot)
        except KeyError:
            return None

    def updates_of(self, variable: tf.Variable) -> int:
        """How many updates a variable with slots has had."""
        return int(self.iterations.numpy()) - self.missed_by(variable)

    def restore(self, step: int, updates: Sequence[tuple[tf.Variable, int]]) -> None:
        """Resume after `step` steps, with each variable's number of updates; the slots are set afterwards."""
        self._create_all_weights([variable for variable, count in updates if count])
        self.iterations.assign(step)
        self._missed = {whole(variable)._unique_id: step - count for variable, count in updates if count != step}

    def missed_by(self, variable: tf.Variable) -> int:
        """At how many steps a variable with slots got no gradient."""
        return self._missed.get(whole(variable)._unique_id, 0)

    def update_of(self, variable: tf.Variable) -> tf.Tensor:
        """Which update of a variable the next step makes, from 1."""
        return self.iterations + 1 - self.missed_by(variable)

    def settings(self) -> dict[str, Any]:
        """Of the configuration that Keras stores, what is about all of this."""
        schedule = self.schedule and dataclasses.asdict(self.schedule)
        return {"max_grad_norm": self.max_grad_norm, "schedule": schedule, "rates": self.rates}

    def _create_all_weights(self, var_list: Sequence[tf.Variable]) -> None:
        """In a thread of its own on one device, or TensorFlow would trace the step again because it created them."""
        create = partial(super()._create_all_weights, var_list)
        if tf.distribute.has_strategy():
            create()
            return
        with ThreadPoolExecutor(1) as thread:
            thread.submit(create).result()

    def _clipped(self, pairs: list[tuple[tf.Tensor, tf.Variable]]) -> list[tuple[tf.Tensor, tf.Variable]]:
        """As `torch.nn.utils.clip_grad_norm_` does it; the norm before is kept for the report."""
        gradients, variables = zip(*pairs, strict=True)
        norm = self.last_grad_norm.assign(tf.linalg.global_norm(gradients), read_value=True)
        if self.max_grad_norm:
            scale = tf.minimum(1.0, clipping_ratio(norm, self.max_grad_norm))
            gradients = tuple(gradient * scale for gradient in gradients)
        return list(zip(gradients, variables, strict=True))


class DefinedOptimizer(StepOptimizer):
    """Updates each variable by the core's rule for it; its slots are named as the parts of the state in checkpoints."""

    def __init__(
        self,
        learning_rate: Any,
        config: OptimizationOptions,
        *,
        decay_all: bool = False,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name or config.optim.capitalize(), **kwargs)
        self._set_hyper("learning_rate", learning_rate)
        self._set_hyper("decay", self._initial_decay)
        names = (field.name for field in dataclasses.fields(OptimizationOptions))
        self.config = OptimizationOptions(**{each: getattr(config, each) for each in names})
        self.decay_all = decay_all

    @property
    def optim(self) -> str:  # type: ignore[override]
        """The value of the option."""
        return self.config.optim

    def get_config(self) -> dict[str, Any]:
        """The configuration that Keras stores."""
        own = {"config": dataclasses.asdict(self.config), "decay_all": self.decay_all}
        return {
            **super().get_config(),
            "learning_rate": self._serialize_hyperparameter("learning_rate"),
            **own,
            **self.settings(),
        }

    def _create_slots(self, var_list: Sequence[tf.Variable]) -> None:
        for variable in var_list:
            for part, shape in self._rule(variable).state(own_shape(variable)).items():
                self.add_slot(variable, part, shape=shape)

    def _resource_apply_dense(self, grad: tf.Tensor, var: tf.Variable, apply_state: dict[Any, Any]) -> Any:
        shape, name, update = own_shape(var), pytorch_name(var), self.update_of(var)
        rate = apply_state[(var.device, var.dtype.base_dtype)]["lr_t"] * self.rates.get(name, 1.0)
        corrections = tuple(
            tf.cast(correction(tf.constant(beta, tf.float64), update), tf.float32)
            for beta in (self.config.adam_beta1, self.config.adam_beta2)
        )
        step = Step(
            learning_rate=rate,
            updates=tf.cast(update, tf.float32),
            corrections=(corrections[0], corrections[1]),
            config=self.config,
            xp=tnp,
        )
        slots = {part: self.get_slot(var, part) for part in self._rule(var).state(shape)}
        new, state = self._rule(var).update(
            tf.reshape(var, shape),
            tf.reshape(grad, shape),
            {part: tf.convert_to_tensor(slot) for part, slot in slots.items()},
            step,
            self.decay_all or decays(name, len(shape)),
        )
        changes = [slot.assign(state[part]) for part, slot in slots.items()]
        return tf.group(var.assign(tf.reshape(new, var.shape)), *changes)

    def _rule(self, variable: tf.Variable) -> Rule:
        return rule_of(self.config.optim, pytorch_name(variable), own_shape(variable))


def own_shape(variable: tf.Variable) -> tuple[int, ...]:
    """The shape of a variable, but for a bias that TFConv1D keeps as (1, n), and PyTorch as (n,)."""
    shape = tuple(variable.shape)
    return shape[1:] if pytorch_name(variable).endswith("bias") and len(shape) == 2 and shape[0] == 1 else shape


def correction(beta: tf.Tensor, update: tf.Tensor) -> tf.Tensor:
    """1 - beta ** update, float64."""
    return -tf.math.expm1(tf.cast(update, tf.float64) * tf.math.log(tf.cast(beta, tf.float64)))


def pytorch_name(variable: tf.Variable) -> str:
    """What PyTorch calls a variable."""
    name, _ = convert_tf_weight_name_to_pt_weight_name(whole(variable).name, tf_weight_shape=variable.shape)
    return OF_ADAPTER.sub(r"\1.weight", str(name))


def whole(variable: tf.Variable) -> tf.Variable:
    """The variable that a strategy keeps copies of, each on a device and under another name; without one, itself."""
    if isinstance(variable, tf.distribute.DistributedValues):
        return variable
    container = getattr(variable.handle, "_distributed_container", None)
    return variable if container is None else container()
