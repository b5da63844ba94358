"""Blocks as tf.data pipelines over the memory map, for either Keras: in the schedule's order, or in order on disk."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from clm_core.backend import IGNORED, Blocks, MaskedBlocks, count_predicted, labels_at
from clm_core.schedule import Schedule


def training_batches(blocks: Blocks, schedule: Schedule, start_step: int = 0) -> tf.data.Dataset:
    """The batches of the schedule after `start_step` steps, to its end: int64 of shape (rows, block_size).

    Of masked blocks, pairs of them and the weights of the tokens after the first, float32 (rows, block_size - 1): 0
    where one does not count, else such that their mean in a step is 1: its mean loss is that of the tokens that count.
    """

    def elements() -> Iterator[Any]:
        for _, batches in schedule.steps(start_step):
            share = _share(blocks, np.concatenate(batches))
            yield from (_weighted(blocks, rows, share) for rows in batches)

    count = batches_before(schedule, schedule.total_steps) - batches_before(schedule, start_step)
    return _dataset(blocks, elements, count, tf.TensorSpec((None, blocks.shape[1] - 1), tf.float32))


def training_steps(
    blocks: Blocks, schedule: Schedule, start_step: int = 0, ranks: Sequence[int] = (0,)
) -> tf.data.Dataset:
    """The steps of the schedule after `start_step` of them, to its end: the rows of each, in the order of its batches.

    Of several devices, these are the shares of those of these `ranks`, one after the other, some of them perhaps empty.
    Of masked blocks, pairs of them and their labels, of the same form.
    """

    def elements() -> Iterator[Any]:
        shares = zip(*(schedule.shares(rank, start_step) for rank in ranks), strict=True)
        return (_labelled(blocks, np.concatenate(batches)) for step in shares for _, batches in step)

    count = (schedule.total_steps - start_step) * len(ranks)
    return _dataset(blocks, elements, count, tf.TensorSpec((None, blocks.shape[1]), tf.int64))


def even_steps(blocks: Blocks, schedule: Schedule, start_step: int, devices: int) -> tf.data.Dataset:
    """The same for all devices, as pairs of ids and labels, int64 (rows, block_size), as many rows for each at a step.

    What a device has fewer than the first is filled up with rows in which nothing counts.
    """

    def elements() -> Iterator[Any]:
        shares = zip(*(schedule.shares(rank, start_step) for rank in range(devices)), strict=True)
        for step in shares:
            parts = [np.concatenate(batches) for _, batches in step]
            yield from (_filled(blocks, rows, len(parts[0])) for rows in parts)

    each = tf.TensorSpec((None, blocks.shape[1]), tf.int64)
    dataset = tf.data.Dataset.from_generator(elements, output_signature=(each, each))
    count = (schedule.total_steps - start_step) * devices
    return dataset.apply(tf.data.experimental.assert_cardinality(count))


def evaluation_batches(blocks: Blocks, batch_size: int) -> tf.data.Dataset:
    """All blocks in order, as elements of the same form; the last may have fewer rows."""

    def elements() -> Iterator[Any]:
        return (_labelled(blocks, rows) for rows in _in_order(blocks, batch_size))

    return _dataset(blocks, elements, -(-len(blocks) // batch_size), tf.TensorSpec((None, blocks.shape[1]), tf.int64))


def weighted_evaluation_batches(blocks: Blocks, batch_size: int) -> tf.data.Dataset:
    """All blocks in order, as elements like those of `training_batches`; the mean weight is that of all blocks."""

    def elements() -> Iterator[Any]:
        share = _share(blocks, slice(None))
        return (_weighted(blocks, rows, share) for rows in _in_order(blocks, batch_size))

    weights = tf.TensorSpec((None, blocks.shape[1] - 1), tf.float32)
    return _dataset(blocks, elements, -(-len(blocks) // batch_size), weights)


def batches_before(schedule: Schedule, step: int) -> int:
    """How many batches the first `step` steps have."""
    epoch, batch = schedule.first_batch(step)
    return epoch * schedule.batches_per_epoch + batch


def _in_order(blocks: Blocks, batch_size: int) -> Iterator[slice]:
    return (slice(start, start + batch_size) for start in range(0, len(blocks), batch_size))


def _labelled(blocks: Blocks, rows: Any) -> Any:
    ids = blocks[rows].astype(np.int64)
    return (ids, labels_at(blocks, rows)) if isinstance(blocks, MaskedBlocks) else ids


def _filled(blocks: Blocks, rows: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    more = ((0, count - len(rows)), (0, 0))
    ids, labels = blocks[rows].astype(np.int64), labels_at(blocks, rows)
    return np.pad(ids, more), np.pad(labels, more, constant_values=IGNORED)


def _weighted(blocks: Blocks, rows: Any, share: float) -> Any:
    ids = blocks[rows].astype(np.int64)
    if not isinstance(blocks, MaskedBlocks):
        return ids
    return ids, (labels_at(blocks, rows)[:, 1:] != IGNORED).astype(np.float32) / np.float32(share)


def _share(blocks: Blocks, rows: Any) -> float:
    """The share of the tokens that count in those after the first of some blocks."""
    if not isinstance(blocks, MaskedBlocks):
        return 1.0
    return count_predicted(blocks, rows) / (len(blocks[rows]) * (blocks.shape[1] - 1))


def _dataset(blocks: Blocks, elements: Callable[[], Iterator[Any]], count: int, more: tf.TensorSpec) -> tf.data.Dataset:
    """The first `count` elements, which are ids or, if the blocks are masked, pairs of them and `more`."""
    ids = tf.TensorSpec((None, blocks.shape[1]), tf.int64)
    signature = (ids, more) if isinstance(blocks, MaskedBlocks) else ids
    dataset = tf.data.Dataset.from_generator(elements, output_signature=signature).take(count)
    return dataset.apply(tf.data.experimental.assert_cardinality(count))
