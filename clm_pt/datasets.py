"""Blocks as PyTorch datasets: batches from the memory map, in the schedule's order."""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from clm_core.backend import IGNORED, Blocks, labels_at
from clm_core.schedule import Schedule


class BlockDataset(Dataset[Any]):
    """Blocks of token ids; a DataLoader asks it for all rows of a batch at once."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, row: int) -> Any:
        return self.blocks[row]

    def __getitems__(self, rows: Sequence[int]) -> Blocks:
        return self.blocks[rows]


class EpochBatches(Sampler[list[int]]):
    """The rows of each batch of a device in an epoch, as the schedule has them; some may have none.

    Those of the steps before `first_step` are passed over by Trainer, and are no rows that could be trained on.
    """

    def __init__(self, schedule: Schedule, rank: int = 0, first_step: int = 0) -> None:
        self.schedule, self.rank = schedule, rank
        self.first = schedule.first_batch(first_step)
        self.epoch = 0

    def __len__(self) -> int:
        return self.schedule.batches_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        epoch, done = self.first
        passed = done if self.epoch == epoch else 0
        yield from repeat([self.schedule.blocks], passed)  # One beyond the last: to read it would be an error.
        yield from (rows.tolist() for rows in self.schedule.batches(self.epoch, self.rank, passed))

    def set_epoch(self, epoch: int) -> None:
        """Called by the loader at the start of each epoch."""
        self.epoch = epoch


class ShareLoader(DataLoader[Any]):
    """Loads the batches of a device. Trainer takes them as they are; accelerate would share them out once more.

    In that, it would repeat blocks at the end of an epoch, so that all devices have as many.
    """

    def __init__(self, dataset: Dataset[Any], batches: EpochBatches, **settings: Any) -> None:
        super().__init__(dataset, batch_sampler=batches, **settings)
        self._batches = batches

    def set_epoch(self, epoch: int) -> None:
        """Called by Trainer at the start of each epoch."""
        self._batches.set_epoch(epoch)


def collate(blocks: Blocks) -> dict[str, torch.Tensor]:
    """A batch for a model: input_ids, attention_mask and labels, int64 of shape (batch, block_size).

    The labels of tokens that do not count are ignored, as is the first of a block, since nothing predicts it; Trainer
    counts what is not. Without blocks, it has one of which nothing counts, with which a device takes part in what the
    others do together.
    """
    if not len(blocks):
        input_ids = torch.zeros((1, blocks.shape[1]), dtype=torch.int64)
        return _batch(input_ids, torch.full_like(input_ids, IGNORED))
    labels = torch.from_numpy(labels_at(blocks))
    labels[:, 0] = IGNORED
    return _batch(torch.from_numpy(blocks.astype(np.int64)), labels)


def _batch(input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "labels": labels}
