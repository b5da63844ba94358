"""Blocks as tf.data datasets for transformers' models: in the schedule's order to train, in order on disk to evaluate.

They are plain pipelines over the memory map. transformers' `model.prepare_tf_dataset`, which is here as well for those
who follow the guide, needs twice as long per batch, and when it shuffles it drops the last one and takes no seed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import tensorflow as tf
from datasets.fingerprint import generate_random_fingerprint
from datasets.table import InMemoryTable
from transformers import TFPreTrainedModel

from clm_core.backend import Blocks, MaskedBlocks, labels_at
from clm_core.data.prepared import TRAIN, Prepared
from clm_core.errors import DataError, OptionError
from clm_core.results import PreparationResult
from clm_core.schedule import Schedule
from clm_tf.blocks import evaluation_batches, training_steps
from clm_tf.together import Together

Collate = Callable[[list[dict[str, Any]]], dict[str, Any]]


def training_dataset(blocks: Blocks, schedule: Schedule, *, start_step: int = 0) -> tf.data.Dataset:
    """The steps of the schedule after `start_step` of them, to its end: one batch of Keras is one step.

    Elements are dicts of `input_ids` and `labels`, both int64 of shape (rows, block_size) and equal, because
    TensorFlow's models shift the labels themselves; the label of a token that does not count is -100. There is no
    attention mask: a block has no padding.
    A model of `clm_tf.load`, or `step_in_batches`, computes no more than `schedule.share_size` rows at a time.
    """
    return _labelled(training_steps(blocks, schedule, start_step))


def shared_dataset(
    blocks: Blocks, schedule: Schedule, start_step: int, together: Together
) -> tf.distribute.DistributedDataset:
    """The same for all devices of a strategy: each gets its rows of a step, and each process reads its own only."""
    world = together.world
    ranks = range(world.rank, world.rank + world.local)
    return together.strategy.distribute_datasets_from_function(
        lambda context: _labelled(training_steps(blocks, schedule, start_step, ranks))
    )


def evaluation_dataset(blocks: Blocks, batch_size: int) -> tf.data.Dataset:
    """All blocks in order, as elements of the same form; the last may have fewer rows."""
    return _labelled(evaluation_batches(blocks, batch_size))


def prepare_tf_dataset(
    model: TFPreTrainedModel,
    prepared: PreparationResult | Prepared | str | Path,
    split: str = TRAIN,
    *,
    batch_size: int = 8,
    shuffle: bool = True,
    block_size: int | None = None,
    **arguments: Any,
) -> tf.data.Dataset:
    """`model.prepare_tf_dataset` for what `clm.prepare` returns, or a folder of prepared data.

    Elements are what Keras' `fit` takes: a dict of `input_ids` and `attention_mask`, and labels equal to `input_ids`,
    or -100 where a token does not count, all of shape (rows, block_size). The order of a shuffled epoch is TensorFlow's
    own, and follows its global seed.

    Args:
        model: one of transformers' TensorFlow models.
        prepared: what to take blocks from.
        split: `train` or `validation`.
        batch_size: rows in an element.
        shuffle: draw an order for each epoch, and drop the rows that do not fill a batch.
        block_size: default: the one that the data was prepared for.
        **arguments: `collate_fn`, `drop_remainder` and the others of transformers' method. A collator gets rows of
            `input_ids`, uint16 or uint32; with `labels`, int64, where some tokens do not count; and nothing else.

    Raises:
        DataError: there is no prepared data, or no such split.
        OptionError: the data is packed for another block_size, or for any, and none is given.
    """
    data = _opened(prepared)
    if not data.has(split):
        raise DataError(f"{data.folder} has no split {split!r}: it has {', '.join(data.manifest.splits)}")
    asked = prepared.ledger["block_size"] if isinstance(prepared, PreparationResult) else data.packed_for
    if not (size := block_size or asked):
        raise OptionError(f"block_size: {data.folder} can be cut into blocks of any size: give one")
    return dataset_of_rows(model, data.blocks(split, size), batch_size=batch_size, shuffle=shuffle, **arguments)


def dataset_of_rows(
    model: TFPreTrainedModel, blocks: Blocks, *, collate_fn: Collate | None = None, **arguments: Any
) -> tf.data.Dataset:
    """The same for blocks."""
    rows = {"input_ids": _column(np.asarray(blocks))}
    if isinstance(blocks, MaskedBlocks):
        rows["labels"] = _column(labels_at(blocks))
    # A fingerprint would be made of every byte.
    dataset = datasets.Dataset(InMemoryTable(pa.table(rows)), fingerprint=generate_random_fingerprint())
    return model.prepare_tf_dataset(dataset, collate_fn=collate_fn or _collate, **arguments)


def _column(values: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _collate(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    ids = np.stack([row["input_ids"] for row in rows]).astype(np.int64)
    labels = np.stack([row["labels"] for row in rows]) if "labels" in rows[0] else ids
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "labels": labels}


def _opened(prepared: PreparationResult | Prepared | str | Path) -> Prepared:
    if isinstance(prepared, Prepared):
        return prepared
    return Prepared.open(prepared.folder if isinstance(prepared, PreparationResult) else Path(prepared))


def _labelled(batches: tf.data.Dataset) -> tf.data.Dataset:
    def named(ids: tf.Tensor, labels: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        return {"input_ids": ids, "labels": ids if labels is None else labels}

    return batches.map(named).prefetch(2)
