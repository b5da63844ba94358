"""Which blocks of a split have tokens that count, and how many: its mask is read once for each size of blocks."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCKS = 2**16
"""How many blocks are looked at in one go."""


@dataclass(frozen=True)
class Counted:
    """The blocks of a split in which a token after the first counts."""

    blocks: npt.NDArray[np.int64]
    """Their numbers."""
    predicted: npt.NDArray[np.int64]
    """How many tokens after its first count in each."""
    masked: int
    """How many tokens of them do not count."""


def as_blocks(values: Any, block_size: int) -> Any:
    """Values of each token as blocks, without those of less than one at the end: (blocks, block_size)."""
    blocks = len(values) // block_size
    return values[: blocks * block_size].reshape(blocks, block_size)


@lru_cache(maxsize=8)
def counted(path: Path, sha256: str, block_size: int) -> Counted:
    """What there is to a mask of this digest."""
    mask = as_blocks(np.memmap(path, np.uint8, mode="r"), block_size)
    predicted, in_all = np.zeros((2, len(mask)), np.int64)
    for first in range(0, len(mask), BLOCKS):
        part = mask[first : first + BLOCKS] != 0
        in_all[first : first + BLOCKS] = part.sum(1)
        predicted[first : first + BLOCKS] = part[:, 1:].sum(1)
    blocks = np.flatnonzero(predicted)
    return Counted(blocks, predicted[blocks], len(blocks) * block_size - int(in_all[blocks].sum()))
