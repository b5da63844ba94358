"""The training step on several devices: each computes its rows a few at a time, and all update once, by the sum."""

from functools import partial
from typing import Any

import keras
import tensorflow as tf

from clm_tf.keras3.decoder import Decoder
from clm_tf.losses import targets_of, token_losses

APART = 2**32
"""What the numbers of a batch, from which dropout is drawn, differ by from device to device."""


def reduce_steps(model: Decoder) -> Decoder:
    """Have `fit` compute each step of `shared_dataset` on all devices of the strategy that the model was built in.

    Keras would take twice the loss of two devices, and would add up no gradients for an optimizer with an `apply` of
    its own. The step needs the optimizer of `create_optimizer`, and returns the loss of all devices.
    """
    model.train_step = partial(_shared_step, model)
    return model


def _shared_step(model: Decoder, data: Any) -> dict[str, Any]:
    replica = tf.distribute.get_replica_context()
    ids, labels = keras.utils.unpack_x_y_sample_weight(data)[:2]
    # Each device has its own copy of this number, which is the same on all until here.
    model.batches.assign_add(tf.cast(replica.replica_id_in_sync_group, tf.int64) * APART)
    tokens = replica.all_reduce(tf.distribute.ReduceOp.SUM, _tokens(labels))
    loss, gradients = _loss_and_gradients(model, ids, labels, tokens)
    model.optimizer.update_by(replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients), model.trainable_variables)
    return {"loss": replica.all_reduce(tf.distribute.ReduceOp.SUM, loss)}


def _loss_and_gradients(
    model: Decoder, ids: tf.Tensor, labels: tf.Tensor, tokens: tf.Tensor
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """The share of these rows, perhaps none, in the mean loss of a step of so many tokens; and its gradients."""
    size, variables = model.optimizer.schedule.share_size, model.trainable_variables

    def add(start: tf.Tensor, loss: tf.Tensor, *sums: tf.Tensor) -> tuple[tf.Tensor, ...]:
        with tf.GradientTape() as tape:
            logits = model(ids[start : start + size], training=True)
            losses, _ = token_losses(logits, targets_of(labels[start : start + size]))
            share = tf.reduce_sum(losses) / tokens
        # A tied embedding gets a sparse gradient as input and a dense one as output; as dense, both are one.
        found = map(tf.convert_to_tensor, tape.gradient(share, [variable.value for variable in variables]))
        return start + size, loss + share, *(total + gradient for total, gradient in zip(sums, found, strict=True))

    start = (tf.constant(0), tf.constant(0.0), *(tf.zeros(variable.shape) for variable in variables))
    count = tf.shape(ids)[0]
    # One at a time: the activations of several would be in memory together.
    _, loss, *sums = tf.while_loop(lambda at, *_: at < count, add, start, parallel_iterations=1)
    return loss, sums


def _tokens(labels: tf.Tensor) -> tf.Tensor:
    """How many tokens there are to predict."""
    return tf.math.count_nonzero(labels[:, 1:] >= 0, dtype=tf.float32)
