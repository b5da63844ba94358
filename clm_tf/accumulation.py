"""The training step: one batch of Keras is one step, whose rows are computed a few at a time and update once."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from transformers import TFPreTrainedModel

from clm_core.backend import IGNORED
from clm_core.stopping import Stop
from clm_tf.optimizers import StepOptimizer

Rows = dict[str, tf.Tensor]


WISH = "wish"
"""What `fit` calls the highest wish of all processes, among what a step returns."""


def step_in_batches(model: TFPreTrainedModel) -> TFPreTrainedModel:
    """Have `fit` compute each step of `training_dataset` in batches of `schedule.share_size`, and return the model.

    It needs the optimizer of `create_optimizer`, and the model's own loss without metrics; otherwise a step is computed
    at once, with the same result. `clm_tf.load` does this.
    """
    model.train_step = partial(_train_step, model, model.train_step)
    return model


def share_steps(model: TFPreTrainedModel, stop: Stop) -> None:
    """Have `fit` compute each step on all devices of the model's strategy, each of which gets its rows.

    A step returns the loss of all devices and, where there are several processes, the highest wish to stop as `WISH`.
    """
    model.train_step = partial(_shared_step, model, stop)
    model.distribute_reduction_method = "first"  # Or Keras would add up what is the same on each device.


def _shared_step(model: TFPreTrainedModel, stop: Stop, data: Any) -> dict[str, Any]:
    replica = tf.distribute.get_replica_context()
    rows, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    loss, gradients = _loss_and_gradients(model, rows, model.optimizer.schedule.share_size)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    logs = {"loss": replica.all_reduce(tf.distribute.ReduceOp.SUM, loss)}
    if stop.together:
        wish = tf.ensure_shape(tf.numpy_function(lambda: np.int64(stop.wish), [], tf.int64), ())
        logs[WISH] = tf.reduce_max(replica.all_gather(wish[None], axis=0))
    return logs


def _train_step(model: TFPreTrainedModel, at_once: Callable[[Any], dict[str, Any]], data: Any) -> dict[str, Any]:
    rows, *others = keras.utils.unpack_x_y_sample_weight(data)
    if not _accumulates(model) or others != [None, None] or "labels" not in rows:
        return at_once(data)
    loss, gradients = _loss_and_gradients(model, rows, model.optimizer.schedule.share_size)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    model.compiled_loss(loss[None], loss[None])  # As transformers' own step has it: the mean that `fit` shows.
    return {metric.name: metric.result() for metric in model.metrics}


def _accumulates(model: TFPreTrainedModel) -> bool:
    schedule = isinstance(model.optimizer, StepOptimizer) and model.optimizer.schedule
    has_own_loss = model._using_dummy_loss and not model.compiled_metrics._user_metrics
    return bool(schedule and schedule.accumulation > 1 and has_own_loss)


def _loss_and_gradients(
    model: TFPreTrainedModel, rows: Rows, size: int
) -> tuple[tf.Tensor, Sequence[tf.Tensor | None]]:
    """The share of these rows in the mean loss of a step, whose rows are those of all devices; and its gradients.

    A variable that is not used has None. A device may have no rows: its share is 0.
    """
    variables = model.trainable_variables
    batches, all_devices = _cut(rows, size), tf.distribute.get_replica_context()
    tokens = all_devices.all_reduce(tf.distribute.ReduceOp.SUM, _tokens(rows))
    used = [True] * len(variables)

    def add(index: tf.Tensor, loss: tf.Tensor, *sums: tf.Tensor) -> tuple[tf.Tensor, ...]:
        batch = {name: values[index] for name, values in batches.items()}
        with tf.GradientTape() as tape:
            mean = tf.add_n([tf.reduce_mean(model(batch, training=True, return_dict=True).loss), *model.losses])
            share = mean * (_tokens(batch) / tokens)
        gradients = tape.gradient(share, variables)
        used[:] = [gradient is not None for gradient in gradients]
        return index + 1, loss + share, *map(_plus, sums, gradients)

    start = (tf.constant(0), tf.constant(0.0), *(tf.zeros(variable.shape) for variable in variables))
    count = tf.shape(batches["labels"])[0]
    # One at a time: the activations of several would be in memory together.
    _, loss, *sums = tf.while_loop(lambda index, *_: index < count, add, start, parallel_iterations=1)
    return loss, [total if there else None for total, there in zip(sums, used, strict=True)]


def _cut(rows: Rows, size: int) -> Rows:
    """As few batches of up to `size` rows as there can be, of one size: (batches, rows, length).

    The last may end with rows of no tokens, fewer than it has. XLA needs one size, and the others lose nothing by it.
    """
    count = tf.shape(rows["labels"])[0]
    batches = -(-count // size)
    each = -(-count // tf.maximum(batches, 1))

    def cut(name: str, values: tf.Tensor) -> tf.Tensor:
        filler = tf.constant(IGNORED if name == "labels" else 0, values.dtype)
        padded = tf.pad(values, [[0, batches * each - count], [0, 0]], constant_values=filler)
        return tf.reshape(padded, (batches, each, values.shape[1]))

    return {name: cut(name, values) for name, values in rows.items()}


def _tokens(rows: Rows) -> tf.Tensor:
    """How many tokens the rows have to predict."""
    return tf.math.count_nonzero(rows["labels"][:, 1:] != IGNORED, dtype=tf.float32)


def _plus(total: tf.Tensor, gradient: tf.Tensor | tf.IndexedSlices | None) -> tf.Tensor:
    # A tied embedding gets a sparse gradient as input and a dense one as output; as dense, both are one.
    return total if gradient is None else total + tf.convert_to_tensor(gradient)
