"""Blocks as tf.data pipelines over the memory map, for either Keras: in the schedule's order, or in order on disk."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from clm_core.backend import Blocks
from clm_core.schedule import Schedule


def training_batches(blocks: Blocks, schedule: Schedule, start_step: int = 0) -> tf.data.Dataset:
    """The batches of the schedule after `start_step` steps, to its end: int64 of shape (rows, block_size)."""

    def rows() -> Iterator[Any]:
        return (rows for _, batches in schedule.steps(start_step) for rows in batches)

    return _batches(blocks, rows, batches_before(schedule, schedule.total_steps) - batches_before(schedule, start_step))


def training_steps(
    blocks: Blocks, schedule: Schedule, start_step: int = 0, ranks: Sequence[int] = (0,)
) -> tf.data.Dataset:
    """The steps of the schedule after `start_step` of them, to its end: the rows of each, in the order of its batches.

    Of several devices, these are the shares of those of these `ranks`, one after the other, some of them perhaps empty.
    """

    def rows() -> Iterator[Any]:
        shares = zip(*(schedule.shares(rank, start_step) for rank in ranks), strict=True)
        return (np.concatenate(batches) for step in shares for _, batches in step)

    return _batches(blocks, rows, (schedule.total_steps - start_step) * len(ranks))


def evaluation_batches(blocks: Blocks, batch_size: int) -> tf.data.Dataset:
    """All blocks in order, as elements of the same form; the last may have fewer rows."""
    starts = range(0, len(blocks), batch_size)
    return _batches(blocks, lambda: (slice(start, start + batch_size) for start in starts), len(starts))


def batches_before(schedule: Schedule, step: int) -> int:
    """How many batches the first `step` steps have."""
    epoch, batch = schedule.first_batch(step)
    return epoch * schedule.batches_per_epoch + batch


def _batches(blocks: Blocks, rows: Callable[[], Iterator[Any]], count: int) -> tf.data.Dataset:
    """The blocks at each of the first `count` indices from `rows`."""

    def gathered() -> Iterator[np.ndarray]:
        return (blocks[index].astype(np.int64) for index in rows())

    element = tf.TensorSpec((None, blocks.shape[1]), tf.int64)
    dataset = tf.data.Dataset.from_generator(gathered, output_signature=element).take(count)
    return dataset.apply(tf.data.experimental.assert_cardinality(count))
