"""Blocks of token ids, those of which some tokens do not count, and their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:  # This module is loaded to print help, which is not to wait for NumPy.
    import numpy as np
    import numpy.typing as npt

Blocks: TypeAlias = "npt.NDArray[np.unsignedinteger[Any]] | MaskedBlocks"
"""Token ids of shape (blocks, block_size), uint16 or uint32, a read-only view of a file on disk.

Every id is below the model's vocabulary size. The first token of a block is context only; the
other block_size - 1 are predicted. There is no padding, and the attention mask is all ones. Where some tokens do not
count, the blocks are `MaskedBlocks`, which only a backend that says so (`Backend.masks`) gets; `labels_at` has the
labels of both.
"""

IGNORED = -100
"""The label of a token that does not count, as the losses of PyTorch and transformers have it."""


@dataclass(frozen=True, eq=False)
class MaskedBlocks:
    """Blocks of which some tokens do not count, such as those of a prompt; indexed like the array of their ids.

    Several of them are `MaskedBlocks` again, so that a batch keeps its mask; one of them is the array of its ids. In
    each, a token after the first counts.
    """

    ids: Any
    """(blocks, block_size), uint16 or uint32."""
    mask: Any
    """uint8 of the same shape: 1 where a token counts."""
    chosen: Any = None
    """The numbers of those that there are, int64; None for all."""

    @property
    def shape(self) -> tuple[int, int]:
        """(blocks, block_size)."""
        return len(self), self.ids.shape[1]

    @property
    def dtype(self) -> Any:
        """Of the ids."""
        return self.ids.dtype

    def __len__(self) -> int:
        return len(self.ids) if self.chosen is None else len(self.chosen)

    def __getitem__(self, index: Any) -> Any:
        rows = index if self.chosen is None else self.chosen[index]
        ids = self.ids[rows]
        return ids if ids.ndim == 1 else MaskedBlocks(ids, self.mask[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        import numpy as np

        return np.array(self.ids if self.chosen is None else self.ids[self.chosen], dtype)

    def astype(self, dtype: Any) -> Any:
        """The ids as an array."""
        return self.__array__(dtype)


def labels_at(blocks: Blocks, rows: Any = slice(None)) -> npt.NDArray[np.int64]:
    """The labels of some blocks, int64 (rows, block_size): the ids themselves, and `IGNORED` where one does not count.

    They are not shifted, and the first of a block is there too, although nothing predicts it.
    """
    import numpy as np

    part = blocks[rows]
    labels: npt.NDArray[np.int64] = part.astype(np.int64)
    return np.where(part.mask, labels, IGNORED) if isinstance(part, MaskedBlocks) else labels


def count_predicted(blocks: Blocks, rows: Any = slice(None)) -> int:
    """How many tokens of some blocks count, without the first of each."""
    part = blocks[rows]
    if not isinstance(part, MaskedBlocks):
        return int(part.shape[0] * (part.shape[1] - 1))
    return int((part.mask[:, 1:] != 0).sum())
