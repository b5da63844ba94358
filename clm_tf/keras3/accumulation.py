"""The training step: its logits in chunks; on several devices, each of which computes its rows a few at a time."""

from functools import partial
from typing import Any

import keras
import tensorflow as tf

from clm_core.backend import IGNORED
from clm_tf.keras3.decoder import Decoder
from clm_tf.losses import Gradient, gradients_in_chunks, sum_of, targets_of, token_losses

APART = 2**32
"""What the numbers of a batch, from which dropout is drawn, differ by from device to device."""


def reduce_steps(model: Decoder) -> Decoder:
    """Have `fit` compute each step of `shared_dataset` on all devices of the strategy that the model was built in.

    Keras would take twice the loss of two devices, and would add up no gradients for an optimizer with an `apply` of
    its own. The step needs the optimizer of `create_optimizer`, and returns the loss of all devices.
    """
    model.train_step = partial(_shared_step, model)
    return model


def step_in_chunks(model: Decoder) -> Decoder:
    """Have `fit` compute each batch of `training_dataset` without the logits of all its tokens at once.

    It needs the loss `NextToken`, without metrics, and the optimizer of `create_optimizer`.
    """
    model.train_step = partial(_train_step, model)
    return model


def _shared_step(model: Decoder, data: Any) -> dict[str, Any]:
    replica = tf.distribute.get_replica_context()
    ids, labels = keras.utils.unpack_x_y_sample_weight(data)[:2]
    # Each device has its own copy of this number, which is the same on all until here.
    model.batches.assign_add(tf.cast(replica.replica_id_in_sync_group, tf.int64) * APART)
    tokens = replica.all_reduce(tf.distribute.ReduceOp.SUM, _tokens(labels))
    loss, gradients = _of_step(model, ids, labels, tokens)
    model.optimizer.update_by(replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients), model.trainable_variables)
    return {"loss": replica.all_reduce(tf.distribute.ReduceOp.SUM, loss)}


def _train_step(model: Decoder, data: Any) -> dict[str, Any]:
    ids, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
    count = tf.cast(tf.size(labels[:, 1:]), tf.float32)
    if weights is not None:  # As `training_batches` makes them: 0, or what is the same for all tokens of a step.
        labels = tf.concat([labels[:, :1], tf.where(weights > 0, labels[:, 1:], IGNORED)], 1)
        count /= tf.reduce_max(weights)
    loss, gradients = _of_batch(model, ids, labels, count)
    model._loss_tracker.update_state(loss)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    found: dict[str, Any] = model.get_metrics_result()
    return found


def _of_step(model: Decoder, ids: tf.Tensor, labels: tf.Tensor, tokens: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """The share of these rows, perhaps none, in the mean loss of a step of `tokens` tokens; and its gradients."""
    size = model.optimizer.schedule.share_size

    def add(start: tf.Tensor, loss: tf.Tensor, *sums: tf.Tensor) -> tuple[tf.Tensor, ...]:
        share, found = _of_batch(model, ids[start : start + size], labels[start : start + size], tokens)
        return start + size, loss + share, *map(_add, sums, found)

    start = (tf.constant(0), tf.constant(0.0), *(tf.zeros(variable.shape) for variable in model.trainable_variables))
    count = tf.shape(ids)[0]
    # One at a time: the activations of several would be in memory together.
    _, loss, *sums = tf.while_loop(lambda at, *_: at < count, add, start, parallel_iterations=1)
    return loss, sums


def _of_batch(
    model: Decoder, ids: tf.Tensor, labels: tf.Tensor, tokens: tf.Tensor
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """The share of a batch in the mean loss of `tokens` tokens, with what the model adds to it; and its gradients."""
    output, targets = model.output(), targets_of(labels)
    variables = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(ids, training=True, head=output is None)
        losses = list(model.losses)
        if output is None:
            losses.append(tf.reduce_sum(token_losses(outputs, targets)[0]) / tokens)
    if output is None:
        return tf.add_n(losses), [*map(_dense, tape.gradient(losses, variables))]
    loss, of_hidden, found = gradients_in_chunks(outputs, output, targets, tokens)
    ones = [tf.ones_like(each) for each in losses]
    of_body = tape.gradient([outputs, *losses], variables, output_gradients=[of_hidden, *ones])
    by_variable = {variable.ref(): gradient for variable, gradient in zip(output.parameters, found, strict=True)}
    of_head = [by_variable.get(variable.ref()) for variable in variables]
    return tf.add_n([loss, *losses]), [*map(_dense, map(sum_of, of_head, of_body))]


def _add(total: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    return total + tf.cast(gradient, tf.float32)


def _dense(gradient: Gradient) -> tf.Tensor:
    """A gradient as a tensor; rows of it that are one are added up in float32."""
    if isinstance(gradient, tf.IndexedSlices):
        values = tf.cast(gradient.values, tf.float32)
        return tf.convert_to_tensor(tf.IndexedSlices(values, gradient.indices, gradient.dense_shape))
    return tf.convert_to_tensor(gradient)


def _tokens(labels: tf.Tensor) -> tf.Tensor:
    """How many tokens there are to predict."""
    return tf.math.count_nonzero(labels[:, 1:] >= 0, dtype=tf.float32)
