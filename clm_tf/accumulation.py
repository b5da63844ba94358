"""The training step: one batch of Keras is one step, whose rows are computed a few at a time and update once."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
import tf_keras as keras
from transformers import TFPreTrainedModel

from clm_core.backend import IGNORED
from clm_core.stopping import Stop
from clm_tf.head import Head, head_behind
from clm_tf.losses import Gradient, gradients_in_chunks, sum_of, targets_of, token_losses
from clm_tf.optimizers import StepOptimizer
from clm_tf.tracing import traced

Rows = dict[str, tf.Tensor]
Gradients: TypeAlias = Sequence[Gradient]


WISH = "wish"
"""What `fit` calls the highest wish of all processes, among what a step returns."""


class NextToken:
    """The loss of transformers' classes, of float32 logits: the mean of the tokens that follow.

    In mixed precision the classes would round every token's loss, and their sum, to bfloat16.
    """

    def __init__(self, compute_loss: Callable[..., tf.Tensor]) -> None:
        self._compute_loss = compute_loss

    def __call__(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """As the method `hf_compute_loss`."""
        return self._compute_loss(labels, tf.cast(logits, tf.float32))


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
    loss, gradients = traced(model, _of_step)(model, rows, model.optimizer.schedule.share_size)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    logs = {"loss": replica.all_reduce(tf.distribute.ReduceOp.SUM, loss)}
    if stop.together:
        wish = tf.ensure_shape(tf.numpy_function(lambda: np.int64(stop.wish), [], tf.int64), ())
        logs[WISH] = tf.reduce_max(replica.all_gather(wish[None], axis=0))
    return logs


def _train_step(model: TFPreTrainedModel, at_once: Callable[[Any], dict[str, Any]], data: Any) -> dict[str, Any]:
    rows, *others = keras.utils.unpack_x_y_sample_weight(data)
    if not _has_own_step(model) or others != [None, None] or "labels" not in rows:
        return at_once(data)
    schedule = model.optimizer.schedule
    if schedule.accumulation == 1:
        loss, gradients = traced(model, _of_batch)(model, rows, _tokens(rows))
    else:
        loss, gradients = traced(model, _of_step)(model, rows, schedule.share_size)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    model.compiled_loss(loss[None], loss[None])  # As transformers' own step has it: the mean that `fit` shows.
    return {metric.name: metric.result() for metric in model.metrics}


def _has_own_step(model: TFPreTrainedModel) -> bool:
    has_own_loss = model._using_dummy_loss and not model.compiled_metrics._user_metrics
    return bool(isinstance(model.optimizer, StepOptimizer) and model.optimizer.schedule and has_own_loss)


def _of_step(model: TFPreTrainedModel, rows: Rows, size: int) -> tuple[tf.Tensor, Gradients]:
    """The share of these rows in the mean loss of a step, whose rows are those of all devices; and its gradients.

    A variable that is not used has None. A device may have no rows: its share is 0.
    """
    variables = model.trainable_variables
    batches, all_devices = _cut(rows, size), tf.distribute.get_replica_context()
    tokens = all_devices.all_reduce(tf.distribute.ReduceOp.SUM, _tokens(rows))
    used = [True] * len(variables)

    def add(index: tf.Tensor, loss: tf.Tensor, *sums: tf.Tensor) -> tuple[tf.Tensor, ...]:
        share, gradients = _of_batch(model, {name: values[index] for name, values in batches.items()}, tokens)
        used[:] = [gradient is not None for gradient in gradients]
        return index + 1, loss + share, *map(_plus, sums, gradients)

    start = (tf.constant(0), tf.constant(0.0), *(tf.zeros(variable.shape) for variable in variables))
    count = tf.shape(batches["labels"])[0]
    # One at a time: the activations of several would be in memory together.
    _, loss, *sums = tf.while_loop(lambda index, *_: index < count, add, start, parallel_iterations=1)
    return loss, [total if there else None for total, there in zip(sums, used, strict=True)]


def _of_batch(model: TFPreTrainedModel, rows: Rows, tokens: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
    """The share of a batch in the mean loss of a step of `tokens` tokens, and its gradients.

    Where the loss and the head are known, the logits are computed in chunks.
    """
    is_known = isinstance(model.hf_compute_loss, NextToken)
    inputs = {name: values for name, values in rows.items() if name != "labels"} if is_known else rows
    variables = model.trainable_variables
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(inputs, training=True, return_dict=True)
        added = [loss * (_tokens(rows) / tokens) for loss in model.losses]
        head = head_behind(outputs.logits) if is_known else None
        if is_known and head is None:
            losses, _ = token_losses(tf.cast(outputs.logits, tf.float32), targets_of(rows["labels"]))
            loss = tf.add_n([tf.reduce_sum(losses) / tokens, *added])
        elif head is None:
            loss = tf.add_n([tf.reduce_mean(outputs.loss) * (_tokens(rows) / tokens), *added])
    if head is None:
        return loss, tape.gradient(loss, variables)
    return _in_chunks(tape, variables, head, rows, tokens, added)


def _in_chunks(
    tape: tf.GradientTape,
    variables: Sequence[tf.Variable],
    head: Head,
    rows: Rows,
    tokens: tf.Tensor,
    added: Sequence[tf.Tensor],
) -> tuple[tf.Tensor, Gradients]:
    """The same where all but the head has been computed, and `added` is what the model adds to the loss."""
    trained = [it for it in head.parameters if any(found is not None for found in tape.gradient(it, variables))]
    loss, of_hidden, of_trained = gradients_in_chunks(
        head.hidden, head.output(trained), targets_of(rows["labels"]), tokens
    )
    ones = [tf.ones_like(each) for each in added]
    of_body = tape.gradient([head.hidden, *added], variables, output_gradients=[of_hidden, *ones])
    of_head = tape.gradient(trained, variables, output_gradients=of_trained) if trained else [None] * len(variables)
    return tf.add_n([loss, *added]), [*map(sum_of, of_head, of_body)]


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


def _plus(total: tf.Tensor, gradient: Gradient) -> tf.Tensor:
    return total if gradient is None else total + tf.convert_to_tensor(gradient)
