"""The format of prepared data: a flat file of tokens for each split, document ends, and a manifest.

    train.bin       token ids, little-endian uint16, or uint32 where an id is above 65,535
    train.ends      for each document, the number of tokens up to and with its last one, little-endian uint64
    validation.bin, validation.ends
    val.bin         validation.bin once more, under the name by which nanoGPT looks for it, where it is uint16
    manifest.json   written last: without it there is no prepared data here

Blocks of any size are a view of the token file; where it was packed as the guide does, of one size.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clm_core.backend import Blocks
from clm_core.errors import DataError, OptionError
from clm_core.shards import Shard

AGAIN = "prepare again, with --overwrite-cache"
FORMAT = 2
MANIFEST = "manifest.json"
TRAIN, VALIDATION = "train", "validation"
PUBLICATION = "publication.json"
"""The file that says where to publish the data, for `clm push`; it is not uploaded."""
NANOGPT = "val.bin"
FILES = {MANIFEST, NANOGPT, PUBLICATION}
FILES |= {f"{split}.{kind}" for split in (TRAIN, VALIDATION) for kind in ("bin", "ends")}
"""All files of a folder of prepared data."""

LEFT_OUT = {
    "empty": "without text",
    "skipped": "over the limits",
    "elsewhere": "in other shards",
}
"""Why a document is in no split: the name in the manifest and the ledger, and the words for people."""


@dataclass(frozen=True, kw_only=True)
class SplitEntry:
    """What went into a split."""

    documents: int
    bytes: int
    """Bytes of the documents in UTF-8."""
    tokens: int
    """Tokens the tokenizer produced."""
    eos_added: int
    """End-of-sequence tokens put between documents."""
    largest_id: int
    """The largest token id in the file, -1 if it is empty; a model needs more embeddings than that."""
    sha256: str
    ends_sha256: str
    tokens_dropped: int = 0
    """Tokens that packing left out of the file, from the batches that the guide cuts separately."""

    @property
    def tokens_written(self) -> int:
        """All tokens in the file."""
        return self.tokens + self.eos_added - self.tokens_dropped


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The inputs of prepared data."""

    source: dict[str, str | None]
    tokenizer: str
    """SHA-256 of what the tokenizer does with text."""
    tokenizer_name: str
    """The tokenizer as it was given: a folder, a name on the Hub, or `sample`."""
    engine: str
    """What tokenized; the files do not depend on it."""
    vocabulary: int
    dtype: str
    options: dict[str, Any]
    documents_read: int
    documents_empty: int
    """Documents that are None, empty, or only whitespace."""
    documents_skipped: int
    """Documents beyond a limit such as max_train_samples."""
    documents_elsewhere: int
    """Documents in other shards."""
    splits: dict[str, SplitEntry]
    format: int = FORMAT


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
        manifest = read_manifest(folder)
        prepared = cls(folder=folder, manifest=manifest)
        for split, entry in manifest.splits.items():
            _check_size(folder / f"{split}.bin", entry.tokens_written * np.dtype(manifest.dtype).itemsize)
            _check_size(folder / f"{split}.ends", entry.documents * np.dtype("<u8").itemsize)
        return prepared

    def verify(self) -> None:
        """Make sure that the files match their checksums; as fast as SHA-256.

        Raises:
            DataError: one is not.
        """
        for split, entry in self.manifest.splits.items():
            _check_hash(self._path(split), entry.sha256)
            _check_hash(self.folder / f"{split}.ends", entry.ends_sha256)
        copy = self.folder / NANOGPT
        if self.has(VALIDATION) and copy.is_file() and not copy.samefile(self._path(VALIDATION)):
            _check_hash(copy, self.manifest.splits[VALIDATION].sha256)

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

    def blocks(self, split: str, block_size: int) -> Blocks:
        """The blocks of a split, a read-only view of the file, of shape (blocks, block_size)."""
        count = self.count(split, block_size)
        blocks: Blocks = self.tokens(split)[: count.tokens_kept].reshape(count.blocks, block_size)
        return blocks

    def count(self, split: str, block_size: int) -> BlockCount:
        """How many blocks there are, and how many tokens that keeps and drops.

        Raises:
            OptionError: the data is packed in blocks of another size.
        """
        if self.packed_for not in (None, block_size):
            raise OptionError(
                f"block_size {block_size}: {self.folder} is packed in blocks of {self.packed_for}: give --block-size "
                f"{self.packed_for}, or prepare the data again"
            )
        entry = self.manifest.splits[split]
        blocks, rest = divmod(entry.tokens_written, block_size)
        return BlockCount(blocks=blocks, tokens_kept=blocks * block_size, tokens_dropped=entry.tokens_dropped + rest)

    def bytes_per_token(self, split: str) -> float:
        """Bytes of text for each token of the split, end-of-sequence tokens included."""
        entry = self.manifest.splits[split]
        return entry.bytes / (entry.tokens + entry.eos_added)

    def ledger(self, block_size: int) -> dict[str, Any]:
        """Where every document and every token went, for people and programs."""
        splits = {
            split: {
                "documents": entry.documents,
                "tokens": entry.tokens,
                "eos_added": entry.eos_added,
                **asdict(self.count(split, block_size)),
            }
            for split, entry in self.manifest.splits.items()
        }
        totals = {name: getattr(self.manifest, f"documents_{name}") for name in ("read", *LEFT_OUT)}
        return {"documents": totals, "block_size": block_size, "splits": splits}

    def _path(self, split: str) -> Path:
        return self.folder / f"{split}.bin"


def documents_read(documents: Mapping[str, int]) -> str:
    """What became of documents, in words: those of a ledger."""
    left_out = [f"{documents[why]:,} {words}" for why, words in LEFT_OUT.items() if documents[why]]
    used = documents["read"] - sum(documents[why] for why in LEFT_OUT)
    if not left_out:
        return f"{used:,} documents"
    return f"{used:,} of {documents['read']:,} documents read ({', '.join(left_out)})"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest last, so that a folder that has one is complete."""
    if VALIDATION in manifest.splits and np.dtype(manifest.dtype).itemsize == 2:
        _name_again(folder / f"{VALIDATION}.bin", folder / NANOGPT)
    temporary = folder / f".{MANIFEST}"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(asdict(manifest), file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(folder / MANIFEST)


def check_balance(manifest: Manifest) -> None:
    """Stop if a document got lost between reading and writing: a bug, not an error in the input."""
    used = sum(entry.documents for entry in manifest.splits.values())
    if manifest.documents_read != used + sum(getattr(manifest, f"documents_{why}") for why in LEFT_OUT):
        raise RuntimeError(f"the ledger does not balance: {manifest}")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of prepared data.

    Raises:
        DataError: there is no manifest, or it is damaged, or of another format.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise DataError(f"{folder} has format {content['format']}, but this version reads {FORMAT}: {AGAIN}")
        splits = {split: SplitEntry(**entry) for split, entry in content.pop("splits").items()}
        return Manifest(splits=splits, **content)
    except OSError:
        raise DataError(
            f"{folder} contains no prepared data ({MANIFEST} is missing): prepare some with `clm prepare`"
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{folder / MANIFEST} is damaged ({error}): {AGAIN}") from None


def _check_size(path: Path, expected: int) -> None:
    size = path.stat().st_size if path.is_file() else 0
    if size != expected:
        raise DataError(f"{path} has {size} bytes, but {MANIFEST} says {expected}: {AGAIN}")


def _check_hash(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != expected:
            raise DataError(f"{path} does not match its checksum: {AGAIN}")


def _name_again(path: Path, other: Path) -> None:
    """Give a file a second name, or a copy where the file system has no links."""
    try:
        other.hardlink_to(path)
    except (OSError, NotImplementedError):
        shutil.copyfile(path, other)
