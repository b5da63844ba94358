"""The format of prepared data: a flat file of tokens for each split, document ends, and a manifest.

    train.bin       token ids, little-endian uint16, or uint32 where an id is above 65,535
    train.ends      for each document, the number of tokens up to and with its last one, little-endian uint64
    train.mask      a byte for each token of train.bin: 1, or 0 if it does not count, as in a prompt; not if all count
    validation.bin, validation.ends, validation.mask
    val.bin         validation.bin once more, under the name by which nanoGPT looks for it, where it is uint16
    manifest.json   written last: without it there is no prepared data here

Blocks of any size are a view of the token file; where it was packed as the guide does, of one size.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clm_core.backend import Blocks, MaskedBlocks
from clm_core.counts import with_noun
from clm_core.data.manifest import (
    AGAIN,
    LEFT_OUT,
    MANIFEST,
    NANOGPT,
    TRAIN,
    VALIDATION,
    Manifest,
    SplitEntry,
    contradictions,
    read_manifest,
)
from clm_core.data.masks import Counted, as_blocks, counted
from clm_core.durable import checksums, stamps
from clm_core.errors import DataError, OptionError
from clm_core.shards import Shard

__all__ = [
    "FILES",
    "MANIFEST",
    "PUBLICATION",
    "TRAIN",
    "VALIDATION",
    "BlockCount",
    "Manifest",
    "Prepared",
    "SplitEntry",
    "read_manifest",
]

PUBLICATION = "publication.json"
"""The file that says where to publish the data, for `clm push`; it is not uploaded."""
FILES = {MANIFEST, NANOGPT, PUBLICATION}
FILES |= {f"{split}.{kind}" for split in (TRAIN, VALIDATION) for kind in ("bin", "ends", "mask")}
"""All files of a folder of prepared data."""


@dataclass(frozen=True, kw_only=True)
class BlockCount:
    """What cutting a split into blocks keeps and drops."""

    blocks: int
    tokens_kept: int
    tokens_dropped: int


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A folder of prepared data."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> "Prepared":
        """Read the manifest and check that the files have the size it says.

        Raises:
            DataError: the folder contains no prepared data, another format, or files of another size.
        """
        prepared = cls(folder=folder, manifest=read_manifest(folder))
        for name, listed in prepared.manifest.files.items():
            _check_size(folder / name, listed["size"])
        return prepared

    def faults(self) -> list[str]:
        """What is not as it was written, a line for each; as fast as SHA-256.

        A link is as good as the file that it leads to: data may lie on another disk, and the sums prove it. A
        manifest of an earlier clm does not prove itself: what it says is compared with the files, all but the `bytes`.
        """
        listed, copy, path = self.manifest.files, self.folder / NANOGPT, self._path(VALIDATION)
        if self.has(VALIDATION) and copy.is_file() and not (path.is_file() and copy.samefile(path)):
            listed[NANOGPT] = listed[path.name]
        found = checksums.faults(self.folder, listed, links=True)
        if found or self.manifest.sha256:
            return found
        return contradictions(self.manifest, {split: self._largest_id(split) for split in self.manifest.splits})

    def verify(self, *, once: bool = False) -> None:
        """Make sure that all is as it was written; see `faults`.

        If `once` is enough, nothing is read that was found whole before and has not changed since: what another process
        of the same training has verified, or an earlier start.

        Raises:
            DataError: something is not.
        """
        if once:
            paths = [self.folder / name for name in (*self.manifest.files, MANIFEST, NANOGPT)]
            stamps.once(f"data of {self.manifest.sha256}", [path for path in paths if path.exists()], self._verified)
        else:
            self._verified()

    @property
    def shard(self) -> Shard | None:
        """Which shard of the data this is, or None if it is all of it."""
        part = self.manifest.options.get("shard")
        return Shard.parse(part) if part else None

    @property
    def packed_for(self) -> int | None:
        """The only block_size that the data can be cut into, or None if any works."""
        return self.manifest.options.get("block_size")

    def has(self, split: str) -> bool:
        """Whether there are documents in this split."""
        return split in self.manifest.splits

    def tokens(self, split: str) -> Any:
        """All tokens of a split, a read-only view of the file, of shape (tokens,)."""
        dtype = np.dtype(self.manifest.dtype)
        if not self.manifest.splits[split].tokens_written:
            return np.zeros(0, dtype)  # An empty file cannot be mapped.
        return np.memmap(self._path(split), dtype=dtype, mode="r")

    def ends(self, split: str) -> Any:
        """How many tokens there are up to and with each document's last one, a read-only view, uint64 (documents,)."""
        if not self.manifest.splits[split].documents:
            return np.zeros(0, "<u8")
        return np.memmap(self.folder / f"{split}.ends", dtype="<u8", mode="r")

    def mask(self, split: str) -> Any:
        """Which tokens of a split count, a read-only view of the file, uint8 (tokens,); None if all do."""
        if self.manifest.splits[split].mask is None:
            return None
        return np.memmap(self.folder / f"{split}.mask", dtype=np.uint8, mode="r")

    def blocks(self, split: str, block_size: int) -> Blocks:
        """The blocks of a split, a read-only view of the file, of shape (blocks, block_size).

        Where some tokens do not count, the blocks in which none does are left out.
        """
        self._check_size_of_blocks(block_size)
        ids: Blocks = as_blocks(self.tokens(split), block_size)
        found = self._counted(split, block_size)
        if found is None:
            return ids
        return MaskedBlocks(ids, as_blocks(self.mask(split), block_size), found.blocks)

    def predicted(self, split: str, block_size: int) -> Any:
        """How many tokens after its first count in each block, int64 (blocks,); None if all do."""
        found = self._counted(split, block_size)
        return None if found is None else found.predicted

    def count(self, split: str, block_size: int) -> BlockCount:
        """How many blocks there are, and how many tokens that keeps and drops.

        Raises:
            OptionError: the data is packed in blocks of another size.
        """
        self._check_size_of_blocks(block_size)
        entry = self.manifest.splits[split]
        found = self._counted(split, block_size)
        blocks = entry.tokens_written // block_size if found is None else len(found.blocks)
        kept = blocks * block_size
        dropped = entry.tokens_dropped + entry.tokens_written - kept
        return BlockCount(blocks=blocks, tokens_kept=kept, tokens_dropped=dropped)

    def bytes_per_token(self, split: str) -> float:
        """Bytes of text for each token of the split that counts, end-of-sequence tokens included."""
        entry = self.manifest.splits[split]
        if entry.mask:
            return entry.mask.bytes / (entry.tokens_written - entry.mask.tokens)
        return entry.bytes / (entry.tokens + entry.eos_added)

    def ledger(self, block_size: int) -> dict[str, Any]:
        """Where every document and every token went, for people and programs."""
        splits = {
            split: {
                "documents": entry.documents,
                "tokens": entry.tokens,
                "eos_added": entry.eos_added,
                **asdict(self.count(split, block_size)),
                **self._masked(split, block_size),
            }
            for split, entry in self.manifest.splits.items()
        }
        totals = {name: getattr(self.manifest, f"documents_{name}") for name in ("read", *LEFT_OUT)}
        return {"documents": totals, "block_size": block_size, "splits": splits}

    def _masked(self, split: str, block_size: int) -> dict[str, int]:
        """What of a split does not count: the tokens of prompts, and how many of them are in the blocks."""
        entry, found = self.manifest.splits[split], self._counted(split, block_size)
        if entry.mask is None or found is None:
            return {}
        return {
            "prompt": entry.mask.tokens,
            "completion": entry.tokens - entry.mask.tokens,
            "masked": found.masked,
            "blocks_masked": entry.tokens_written // block_size - len(found.blocks),
        }

    def _counted(self, split: str, block_size: int) -> Counted | None:
        mask = self.manifest.splits[split].mask
        return None if mask is None else counted(self.folder / f"{split}.mask", mask.sha256, block_size)

    def _check_size_of_blocks(self, block_size: int) -> None:
        if self.packed_for not in (None, block_size):
            raise OptionError(
                f"block_size {block_size}: {self.folder} is packed in blocks of {self.packed_for}: give --block-size "
                f"{self.packed_for}, or prepare the data again"
            )

    def _verified(self) -> str:
        if found := self.faults():
            raise DataError(f"{self.folder / ', '.join(found)}: {AGAIN}")
        return "whole"

    def _largest_id(self, split: str) -> int:
        tokens = self.tokens(split)
        return int(tokens.max()) if len(tokens) else -1

    def _path(self, split: str) -> Path:
        return self.folder / f"{split}.bin"


def _check_size(path: Path, expected: int) -> None:
    size = path.stat().st_size if path.is_file() else 0
    if size != expected:
        raise DataError(f"{path} has {with_noun(size, 'byte')}, but {MANIFEST} says {expected:,}: {AGAIN}")
