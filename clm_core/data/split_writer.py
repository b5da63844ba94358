"""Writes the files of a split: hashed while they are written, in constant memory."""

import hashlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from clm_core.data.manifest import Mask, SplitEntry
from clm_core.data.tokenization import Tokens
from clm_core.durable import sync_file

ONES = 2**20
"""Entries of a mask that are written at a time, for tokens before the first that does not count."""


class SplitWriter:
    """Takes documents in order, and puts end-of-sequence tokens after each; a context, so that no file stays open."""

    def __init__(self, folder: Path, split: str, *, dtype: str, eos: list[int]) -> None:
        self.dtype, self.eos = np.dtype(dtype), eos
        self.documents = self.bytes = self.tokens = 0
        self.masked = self.counted_bytes = 0
        """Tokens that do not count, and bytes of what counts."""
        self.largest_id = -1
        self._mask_path = folder / f"{split}.mask"
        self._mask: _HashedFile | None = None
        self._tokens = _HashedFile(folder / f"{split}.bin")
        self._ends = _HashedFile(folder / f"{split}.ends")

    def __enter__(self) -> "SplitWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._tokens.close()
        self._ends.close()
        if self._mask:
            self._mask.close()

    def add(self, tokens: Tokens, *, size: int, counted: int | None = None) -> None:
        """Add documents: their tokens, and their size in bytes of UTF-8; how much of that counts, if not all.

        A token that is too large for the type of the file is a bug: RuntimeError.
        """
        self.documents += len(tokens.lengths)
        self.bytes += size
        self.counted_bytes += size if counted is None else counted
        self.tokens += len(tokens.ids)
        ids, lengths = self._with_eos(tokens.ids, tokens.lengths)
        if self._mask or (tokens.counts is not None and not tokens.counts.all()):
            self._add_mask(tokens)
        self._ends.write((self._written + np.cumsum(lengths)).astype("<u8"))
        self._tokens.write(self._fitted(ids))

    def finish(self) -> SplitEntry:
        """Make sure that all is on the disk, and say what it is."""
        return SplitEntry(
            documents=self.documents,
            bytes=self.bytes,
            tokens=self.tokens,
            eos_added=self.documents * len(self.eos),
            largest_id=self.largest_id,
            sha256=self._tokens.finish(),
            ends_sha256=self._ends.finish(),
            mask=Mask(sha256=self._mask.finish(), tokens=self.masked, bytes=self.counted_bytes) if self._mask else None,
        )

    def _with_eos(
        self, values: npt.NDArray[Any], lengths: npt.NDArray[np.int64], end: int | None = None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Values of each token, with that of the end-of-sequence token after each document, its id if not `end`."""
        if not self.eos:
            return values, lengths
        lengths = lengths + len(self.eos)
        is_text = np.ones(int(lengths.sum()), bool)
        is_text[np.cumsum(lengths) - 1] = False
        found = np.full(len(is_text), self.eos[0] if end is None else end, values.dtype)
        found[is_text] = values
        return found, lengths

    def _add_mask(self, tokens: Tokens) -> None:
        """Add to the file of the mask, which begins with the first token that does not count."""
        if self._mask is None:
            self._mask = _HashedFile(self._mask_path)
            for first in range(0, self._written, ONES):
                self._mask.write(np.ones(min(ONES, self._written - first), np.uint8))
        counts = np.ones(len(tokens.ids), bool) if tokens.counts is None else tokens.counts
        self.masked += int(len(counts) - counts.sum())
        self._mask.write(self._with_eos(counts.astype(np.uint8), tokens.lengths, end=1)[0])

    def _fitted(self, ids: npt.NDArray[np.uint32]) -> npt.NDArray[Any]:
        """The ids in the type of the file, which would change those that are too large for it without a word."""
        largest = int(ids.max()) if len(ids) else -1
        if largest > np.iinfo(self.dtype).max:
            raise RuntimeError(f"token id {largest} is too large for {self.dtype}")
        self.largest_id = max(self.largest_id, largest)
        return ids.astype(self.dtype)

    @property
    def _written(self) -> int:
        return self._tokens.size // self.dtype.itemsize


class _HashedFile:
    def __init__(self, path: Path) -> None:
        self.path, self.size = path, 0
        self._digest = hashlib.sha256()
        self._file: BinaryIO = path.open("wb")

    def write(self, array: npt.NDArray[Any]) -> None:
        self._digest.update(array.data)
        self.size += self._file.write(array.data)

    def finish(self) -> str:
        self._file.flush()
        sync_file(self.path)
        return self._digest.hexdigest()

    def close(self) -> None:
        self._file.close()
