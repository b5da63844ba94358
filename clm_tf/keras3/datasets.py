"""Blocks as tf.data datasets for Keras 3: in the schedule's order to train, in order on disk to evaluate."""

import tensorflow as tf

from clm_core.backend import Blocks
from clm_core.schedule import Schedule
from clm_tf.blocks import even_steps, training_batches, weighted_evaluation_batches
from clm_tf.together import Together


def training_dataset(blocks: Blocks, schedule: Schedule, *, start_step: int = 0) -> tf.data.Dataset:
    """The batches of the schedule after `start_step` steps, to its end.

    Elements are pairs of inputs and labels, as `fit` takes them: both int64 of shape (rows, block_size) and equal,
    because `NextToken` shifts the labels. There is no attention mask: a block has no padding. Masked blocks come with
    sample weights, float32 (rows, block_size - 1), by which the loss of a step is that of the tokens that count.
    """
    return _labelled(training_batches(blocks, schedule, start_step))


def shared_dataset(
    blocks: Blocks, schedule: Schedule, start_step: int, together: Together
) -> tf.distribute.DistributedDataset:
    """The steps of the schedule for all devices of a strategy: each gets its rows of a step, and their labels.

    Keras needs as many for each: those that fill up a share have labels below 0.
    """
    devices = together.world.size
    return together.strategy.distribute_datasets_from_function(
        lambda context: even_steps(blocks, schedule, start_step, devices).prefetch(2)
    )


def evaluation_dataset(blocks: Blocks, batch_size: int) -> tf.data.Dataset:
    """All blocks in order, as elements of the same form; the last may have fewer rows."""
    return _labelled(weighted_evaluation_batches(blocks, batch_size))


def _labelled(batches: tf.data.Dataset) -> tf.data.Dataset:
    def paired(ids: tf.Tensor, weights: tf.Tensor | None = None) -> tuple[tf.Tensor, ...]:
        return (ids, ids) if weights is None else (ids, ids, weights)

    return batches.map(paired).prefetch(2)
