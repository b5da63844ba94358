"""How documents become blocks: cut from one stream, or exactly as the guide's `group_texts` cuts them.

The guide maps `group_texts` over batches of 1,000 rows, in several processes, each with a range of the rows.
Every batch is cut by itself, and loses what does not fill a block, so that its rows depend on the number of processes.
Only what it keeps is written, and blocks are a reshape of the file here as well.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from clm_core.data.manifest import SplitEntry
from clm_core.data.split_writer import SplitWriter
from clm_core.data.tokenization import Tokens

STREAM, GUIDE = "stream", "guide"

BATCH_ROWS = 1000
"""Of `datasets.Dataset.map(batched=True)`."""


def map_batches(rows: int, processes: int) -> Iterator[tuple[int, int]]:
    """The first row of each batch, and the one after its last, as `datasets.Dataset.map(num_proc=...)` has them."""
    processes = max(1, min(processes, rows))
    each, more = divmod(rows, processes)
    for process in range(processes):
        start = each * process + min(process, more)
        end = start + each + (process < more)
        for first in range(start, end, BATCH_ROWS):
            yield first, min(first + BATCH_ROWS, end)


class GuideWriter(SplitWriter):
    """Keeps of the documents what the guide's `group_texts` keeps, which is known when all of them are there.

    A batch that is shorter than a block keeps nothing. The guide makes a short row of it.
    """

    def __init__(
        self, folder: Path, split: str, *, dtype: str, eos: list[int], block_size: int, processes: int
    ) -> None:
        super().__init__(folder, f".{split}", dtype=dtype, eos=eos)
        self.folder, self.split, self.block_size, self.processes = folder, split, block_size, processes
        self.short = 0
        """Tokens of batches that are shorter than a block."""

    def finish(self) -> SplitEntry:
        """Cut, make sure that what is kept is on the disk, and say what it is."""
        whole = super().finish()
        files = [self.folder / f".{self.split}.{kind}" for kind in ("bin", "ends")]
        tokens, ends = (_mapped(file, dtype) for file, dtype in zip(files, (self.dtype, "<u8"), strict=True))
        with SplitWriter(self.folder, self.split, dtype=self.dtype.str, eos=[]) as writer:
            for first, end in map_batches(whole.documents, self.processes):
                writer.add(self._cut(tokens, ends, first, end), size=0)
            kept = writer.finish()
        for file in files:
            file.unlink()
        return replace(
            whole,
            largest_id=kept.largest_id,
            sha256=kept.sha256,
            ends_sha256=kept.ends_sha256,
            tokens_dropped=whole.tokens_written - kept.tokens,
        )

    def _cut(self, tokens: Any, ends: Any, first: int, end: int) -> Tokens:
        """The documents of a batch, without what does not fill a block."""
        start = int(ends[first - 1]) if first else 0
        stops = ends[first:end].astype(np.int64) - start
        total = int(stops[-1])
        self.short += total if total < self.block_size else 0
        keep = total // self.block_size * self.block_size
        return Tokens(tokens[start : start + keep], np.diff(np.minimum(stops, keep), prepend=0))


def _mapped(file: Path, dtype: Any) -> Any:
    return np.memmap(file, dtype, mode="r") if file.stat().st_size else np.zeros(0, dtype)
