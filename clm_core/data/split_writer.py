"""Writes the files of a split: hashed while they are written, in constant memory."""

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from clm_core.data.manifest import SplitEntry
from clm_core.data.tokenization import Tokens


class SplitWriter:
    """Takes documents in order, and puts end-of-sequence tokens after each; a context, so that no file stays open."""

    def __init__(self, folder: Path, split: str, *, dtype: str, eos: list[int]) -> None:
        self.dtype, self.eos = np.dtype(dtype), eos
        self.documents = self.bytes = self.tokens = 0
        self.largest_id = -1
        self._tokens = _HashedFile(folder / f"{split}.bin")
        self._ends = _HashedFile(folder / f"{split}.ends")

    def __enter__(self) -> "SplitWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._tokens.close()
        self._ends.close()

    def add(self, tokens: Tokens, *, size: int) -> None:
        """Add documents: their tokens, and their size in bytes of UTF-8.

        A token that is too large for the type of the file is a bug: RuntimeError.
        """
        self.documents += len(tokens.lengths)
        self.bytes += size
        self.tokens += len(tokens.ids)
        ids, lengths = self._with_eos(tokens)
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
        )

    def _with_eos(self, tokens: Tokens) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        lengths = tokens.lengths + len(self.eos)
        if not self.eos:
            return tokens.ids, lengths
        is_text = np.ones(int(lengths.sum()), bool)
        is_text[np.cumsum(lengths) - 1] = False
        ids = np.full(len(is_text), self.eos[0], np.uint32)
        ids[is_text] = tokens.ids
        return ids, lengths

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
        self.size = 0
        self._digest = hashlib.sha256()
        self._file: BinaryIO = path.open("wb")

    def write(self, array: npt.NDArray[Any]) -> None:
        self._digest.update(array.data)
        self.size += self._file.write(array.data)

    def finish(self) -> str:
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._digest.hexdigest()

    def close(self) -> None:
        self._file.close()
