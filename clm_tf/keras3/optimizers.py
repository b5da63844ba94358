"""AdamW, Adafactor and Muon for Keras, by the core's definitions: a step of several batches is one update."""

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
from clm_core.optimizer import Step, clipping_ratio, rule_of
from clm_core.schedule import Schedule
from clm_tf.keras3.masters import Frozen
from clm_tf.keras3.parts import is_embeddings

HALF = "bfloat16"
"""The type of variables of which the optimizer has a float32 master each."""

MATRICES = ("kernel", "lora_A", "lora_B", "lora_kernel_a", "lora_kernel_b")
"""What Keras calls the matrices of a dense layer, and of an adapter beside one."""

OUTSIDE = {"embeddings", "head", "positions", "projection_in", "projection_out"}
"""The layers of a decoder that have matrices, but are in none of its blocks."""


class DefinedOptimizer(keras.optimizers.Optimizer):
    """Updates each variable by the core's rule for it, after clipping, on the gradients of a whole step.

    The gradients of the batches of a step are averaged, each weighted with its rows, and one update is made at the end
    of the step; `iterations` counts updates. Between two steps, the state is that and `state_of` each variable.
    """

    def __init__(
        self,
        learning_rate: Any,
        config: OptimizationOptions,
        schedule: Schedule,
        *,
        decay_all: bool = False,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name or type(self).__name__.lower(), **kwargs)
        self.config, self.schedule, self.decay_all = config, schedule, decay_all
        self.frozen = Frozen({})
        self._relative_rate = relative_rate(config)
        shares = [_shares(schedule, schedule.rows_of_step(step)) for step in (0, schedule.steps_per_epoch - 1)]
        self._shares = np.array([row + [0.0] * (len(shares[0]) - len(row)) for row in shares], np.float32)
        self._batches = np.array([len(row) for row in shares], np.int32)

    def build(self, variables: Sequence[Any]) -> None:
        """Create the state for these variables.

        Raises:
            OptionError: they are neither float32 nor bfloat16.
        """
        if self.built:
            return
        for variable in variables:
            if variable.dtype not in ("float32", HALF):
                kind = type(self).__name__
                raise OptionError(
                    f"{variable.path} is {variable.dtype}, in which an update of {kind} rounds to nothing: "
                    f"use the dtype policy mixed_{variable.dtype}, in which weights are float32"
                )
        super().build(variables)
        self._rules = [rule_of(self.config.optim, _name(variable), tuple(variable.shape)) for variable in variables]
        shapes = [rule.state(tuple(it.shape)) for rule, it in zip(self._rules, variables, strict=True)]
        self._masters = [self._add_master(it) if it.dtype == HALF else None for it in variables]
        self._states: list[dict[str, Any]] = [{} for _ in variables]
        for part in dict.fromkeys(part for own in shapes for part in own):  # In this order in a file of Keras.
            for variable, state, own in zip(variables, self._states, shapes, strict=True):
                if part in own:
                    state[part] = self._add_part(variable, part, own[part])
        self.last_grad_norm = self.add_variable((), initializer="zeros", dtype="float32", name="last_grad_norm")
        if self.schedule.accumulation > 1:
            self._sums = [self._add_part(variable, "sum", tuple(variable.shape)) for variable in variables]
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
        totals = [total + share * ops.cast(grad, "float32") for total, (grad, _) in zip(sums, pairs, strict=True)]

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

    def state_of(self, variable: Any) -> dict[str, Any]:
        """The parts of the state of a variable, of the shapes that the core's rule has for one of its shape."""
        return self._states[self._get_variable_index(variable)]

    def master_of(self, variable: Any) -> Any:
        """The float32 variable behind a bfloat16 one that is trained; None of any other."""
        index = self._trainable_variables_indices.get(self._var_key(variable)) if self.built else None
        return None if index is None else self._masters[index]

    def get_config(self) -> dict[str, Any]:
        """The configuration that Keras stores."""
        own = {"config": dataclasses.asdict(self.config), "schedule": dataclasses.asdict(self.schedule)}
        rate = keras.optimizers.schedules.serialize(self._learning_rate)
        return {"name": self.name, "learning_rate": rate, "decay_all": self.decay_all, **own}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "DefinedOptimizer":
        """The inverse of `get_config`."""
        config = dict(config)
        rate = keras.optimizers.schedules.deserialize(config.pop("learning_rate"), custom_objects)
        options, schedule = OptimizationOptions(**config.pop("config")), Schedule(**config.pop("schedule"))
        return cls(rate, options, schedule, **config)

    def _add_part(self, variable: Any, part: str, shape: tuple[int, ...]) -> Any:
        if shape == tuple(variable.shape) and variable.dtype != HALF:
            return self.add_variable_from_reference(variable, name=part)
        return self.add_variable(shape, initializer="zeros", dtype="float32", name=part)

    def _add_master(self, variable: Any) -> Any:
        def first(shape: Any, dtype: Any) -> Any:
            return ops.cast(variable.value, dtype)

        return self.add_variable(tuple(variable.shape), initializer=first, dtype="float32", name="master")

    def _exact(self, variable: Any) -> Any:
        """The float32 value of a variable: its master, but for what the variable was set to since."""
        value, master = ops.convert_to_tensor(variable), self.master_of(variable)
        if master is None:
            return value
        exact = ops.convert_to_tensor(master)
        return ops.where(ops.equal(ops.cast(exact, value.dtype), value), exact, ops.cast(value, "float32"))

    def _place_in_step(self) -> tuple[Any, Any]:
        """The share of the batch's rows in those of its step, and whether the step ends with it."""
        ends_epoch = ops.cast(ops.equal((self.iterations + 1) % self.schedule.steps_per_epoch, 0), "int32")
        batch = ops.convert_to_tensor(self._batch)
        shares = ops.take(ops.convert_to_tensor(self._shares), ends_epoch, axis=0)
        return ops.take(shares, batch), ops.equal(batch + 1, ops.take(ops.convert_to_tensor(self._batches), ends_epoch))

    def _update(self, pairs: Sequence[tuple[Any, Any]]) -> None:
        # Sums of squares, as `torch.nn.utils.clip_grad_norm_` takes them; the norm before it is kept for the report.
        norm = ops.sqrt(sum(ops.sum(ops.square(ops.cast(grad, "float32"))) for grad, _ in pairs))
        self.last_grad_norm.assign(norm)
        limit = self.config.max_grad_norm
        factor = ops.minimum(1.0, clipping_ratio(norm, limit)) if limit else 1.0
        rate, update = ops.cast(self.learning_rate, "float32"), ops.cast(self.iterations + 1, "float32")
        corrections = (_correction(self.config.adam_beta1, update), _correction(self.config.adam_beta2, update))
        step = Step(learning_rate=rate, updates=update, corrections=corrections, config=self.config, xp=ops)
        of_embeddings = dataclasses.replace(step, learning_rate=rate * self._relative_rate)
        for grad, variable in pairs:
            rule, state = self._rules[self._get_variable_index(variable)], self.state_of(variable)
            value, gradient = self._exact(variable), ops.cast(grad, "float32") * factor
            parts = {part: ops.convert_to_tensor(kept) for part, kept in state.items()}
            decayed = self.decay_all or decays(variable.name, len(variable.shape))
            of_it = of_embeddings if is_embeddings(variable) else step
            new, parts = rule.update(value, gradient, parts, of_it, decayed)
            variable.assign(ops.cast(new, variable.dtype))
            if (master := self.master_of(variable)) is not None:
                master.assign(new)
            for part, kept in state.items():
                kept.assign(parts[part])
        self._iterations.assign_add(1)


@keras.saving.register_keras_serializable("clm")
class AdamW(DefinedOptimizer):
    """`clm_core.optimizer.adamw` for Keras."""

    def moments_of(self, variable: Any) -> tuple[Any, Any]:
        """The two moments of a variable."""
        state = self.state_of(variable)
        return state["m"], state["v"]


@keras.saving.register_keras_serializable("clm")
class Adafactor(DefinedOptimizer):
    """`clm_core.optimizer.adafactor` for Keras."""


@keras.saving.register_keras_serializable("clm")
class Muon(DefinedOptimizer):
    """`clm_core.optimizer.muon` for Keras, for the matrices of layers; `adamw` for all else."""


def _shares(schedule: Schedule, rows: int) -> list[float]:
    """The share of each batch in a step of `rows` rows."""
    return [min(schedule.batch_size, rows - start) / rows for start in range(0, rows, schedule.batch_size)]


def _correction(beta: float, update: Any) -> Any:
    """1 - beta ** update, without what float32 would lose of it in the first updates."""
    return -ops.expm1(update * math.log(beta)) if beta else 1.0


def _name(variable: Any) -> str:
    """What the core's rules take for PyTorch's name: the path of a variable has no number of its layer."""
    *layers, own = variable.path.split("/")
    in_a_block = own in MATRICES and OUTSIDE.isdisjoint(layers)
    return f"0.{'.'.join(layers)}.weight" if in_a_block else variable.path
