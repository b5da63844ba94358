"""tf.data sets of blocks: for the training in the schedule's order, for the evaluation in the order on disk.

They are plain pipelines over the memory map. `prepare_tf_dataset` takes twice the time for a batch, and where it
shuffles it drops the last one and takes no seed.
"""

from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any

import numpy as np
import tensorflow as tf

from clm_core.backend import Blocks
from clm_core.schedule import Schedule


def training_dataset(blocks: Blocks, schedule: Schedule, *, start_step: int = 0) -> tf.data.Dataset:
    """The batches of the schedule from after `start_step` updates to its end.

    Elements are dicts of `input_ids` and `labels`, both int64 of shape (rows, block_size) and equal,
    because TensorFlow's models shift the labels themselves. There is no mask: a block has no padding.
    """

    def rows() -> Iterator[Any]:
        first_epoch, first = schedule.first_batch(start_step)
        for epoch in count(first_epoch):
            yield from islice(schedule.batches(epoch), first, None)
            first = 0

    left = _batches_before(schedule, schedule.total_steps) - _batches_before(schedule, start_step)
    return _dataset(blocks, rows, left)


def evaluation_dataset(blocks: Blocks, batch_size: int) -> tf.data.Dataset:
    """All blocks in order, as elements of the same form; the last may have fewer rows."""
    starts = range(0, len(blocks), batch_size)
    return _dataset(blocks, lambda: (slice(start, start + batch_size) for start in starts), len(starts))


def _dataset(blocks: Blocks, rows: Callable[[], Iterator[Any]], batches: int) -> tf.data.Dataset:
    """The blocks at each of the first so many indices that `rows` gives."""

    def gathered() -> Iterator[np.ndarray]:
        return (blocks[index].astype(np.int64) for index in rows())

    dataset = tf.data.Dataset.from_generator(
        gathered, output_signature=tf.TensorSpec((None, blocks.shape[1]), tf.int64)
    ).take(batches)
    dataset = dataset.map(lambda ids: {"input_ids": ids, "labels": ids})
    return dataset.apply(tf.data.experimental.assert_cardinality(batches)).prefetch(2)


def _batches_before(schedule: Schedule, step: int) -> int:
    epoch, batch = schedule.first_batch(step)
    return epoch * schedule.batches_per_epoch + batch
