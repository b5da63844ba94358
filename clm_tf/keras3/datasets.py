"""Blocks as tf.data datasets: in the schedule's order to train, in order on disk to evaluate."""

import tensorflow as tf

from clm_core.backend import Blocks
from clm_core.schedule import Schedule
from clm_tf.blocks import evaluation_batches, training_batches


def training_dataset(blocks: Blocks, schedule: Schedule, *, start_step: int = 0) -> tf.data.Dataset:
    """The batches of the schedule after `start_step` steps, to its end.

    Elements are pairs of inputs and labels, as `fit` takes them: both int64 of shape (rows, block_size) and equal,
    because `NextToken` shifts the labels. There is no mask: a block has no padding.
    """
    return _labelled(training_batches(blocks, schedule, start_step))


def evaluation_dataset(blocks: Blocks, batch_size: int) -> tf.data.Dataset:
    """All blocks in order, as elements of the same form; the last may have fewer rows."""
    return _labelled(evaluation_batches(blocks, batch_size))


def _labelled(batches: tf.data.Dataset) -> tf.data.Dataset:
    return batches.map(lambda ids: (ids, ids)).prefetch(2)
