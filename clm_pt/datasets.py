"""Blocks as PyTorch datasets: batches from the memory map, in the schedule's order."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from clm_core.backend import Blocks
from clm_core.schedule import Schedule

IGNORED = -100
"""The label of a token that is context only."""


class BlockDataset(Dataset[np.ndarray]):
    """Blocks of token ids; a DataLoader asks it for all rows of a batch at once."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.blocks[row]

    def __getitems__(self, rows: Sequence[int]) -> np.ndarray:
        return self.blocks[rows]


class EpochBatches(Sampler[list[int]]):
    """The rows of each batch of an epoch, as the schedule has them."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.epoch = 0

    def __len__(self) -> int:
        return self.schedule.batches_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        return (rows.tolist() for rows in self.schedule.batches(self.epoch))

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate at the start of each epoch."""
        self.epoch = epoch


def collate(blocks: np.ndarray) -> dict[str, torch.Tensor]:
    """A batch for a model: input_ids, attention_mask and labels, int64 of shape (batch, block_size).

    The first label of a block is ignored, since nothing predicts it; Trainer counts what is not.
    """
    input_ids = torch.from_numpy(blocks.astype(np.int64))
    labels = input_ids.clone()
    labels[:, 0] = IGNORED
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "labels": labels}
