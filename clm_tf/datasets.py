"""tf.data sets of blocks: for the training in the schedule's order, for the evaluation in the order on disk."""

from collections.abc import Iterator
from itertools import count, islice
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import tensorflow as tf
from transformers import TFPreTrainedModel

from clm_core.backend import Blocks
from clm_core.schedule import Schedule


def training_dataset(blocks: Blocks, schedule: Schedule, *, start_step: int = 0) -> tf.data.Dataset:
    """The batches of the schedule from after `start_step` updates to its end.

    Elements are dicts of `input_ids` and `labels`, both int64 of shape (rows, block_size) and equal,
    because TensorFlow's models shift the labels themselves. There is no mask: a block has no padding.
    """

    def batches() -> Iterator[np.ndarray]:
        first_epoch, first = schedule.first_batch(start_step)
        for epoch in count(first_epoch):
            for rows in islice(schedule.batches(epoch), first, None):
                yield blocks[rows].astype(np.int64)
            first = 0

    # transformers' prepare_tf_dataset(shuffle=True) would drop the last batch, and takes no seed.
    shape = tf.TensorSpec((None, blocks.shape[1]), tf.int64)
    left = _batches_before(schedule, schedule.total_steps) - _batches_before(schedule, start_step)
    dataset = tf.data.Dataset.from_generator(batches, output_signature=shape).take(left)
    dataset = dataset.map(lambda ids: {"input_ids": ids, "labels": ids})
    return dataset.apply(tf.data.experimental.assert_cardinality(left)).prefetch(2)


def evaluation_dataset(model: TFPreTrainedModel, blocks: Blocks, batch_size: int) -> tf.data.Dataset:
    """All blocks in order: pairs of input_ids and labels, int64 of shape (rows, block_size), the last of fewer rows."""
    values = pa.array(blocks.reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(values, blocks.shape[1])
    rows = datasets.Dataset(pa.table({"input_ids": column})).with_format("numpy")
    return model.prepare_tf_dataset(
        rows, batch_size=batch_size, shuffle=False, drop_remainder=False, collate_fn=_collate
    )


def _batches_before(schedule: Schedule, step: int) -> int:
    epoch, batch = schedule.first_batch(step)
    return epoch * schedule.batches_per_epoch + batch


def _collate(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """NumPy, because a collator that returns tensors is several times slower."""
    ids = np.stack([row["input_ids"] for row in rows]).astype(np.int64)
    return {"input_ids": ids, "labels": ids}
