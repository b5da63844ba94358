"""Prepared data on disk: the tokens of each split in one flat file, where each document ends, and a manifest.

    train.bin       token ids, little-endian uint16, or uint32 where the vocabulary is above 65,536
    train.ends      for each document, the number of tokens up to and with its last one, little-endian uint64
    validation.bin, validation.ends
    manifest.json   written last: without it there is no prepared data here

Blocks of any size are a view of the token file.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from clm_core.backend import Blocks
from clm_core.errors import DataError

AGAIN = "prepare again, with --overwrite-cache"
FORMAT = 1
MANIFEST = "manifest.json"
TRAIN, VALIDATION = "train", "validation"
FILES = {MANIFEST, *(f"{split}.{kind}" for split in (TRAIN, VALIDATION) for kind in ("bin", "ends"))}
"""All that a folder of prepared data holds."""
FLUSH_DOCUMENTS = 1000


@dataclass(frozen=True, kw_only=True)
class SplitRecord:
    """What went into a split."""

    documents: int
    bytes: int
    """Of the documents, as UTF-8."""
    tokens: int
    """That the tokenizer made of them."""
    eos_added: int
    """End-of-sequence tokens put between documents."""
    sha256: str
    ends_sha256: str

    @property
    def tokens_written(self) -> int:
        """All tokens in the file."""
        return self.tokens + self.eos_added


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What the prepared data were made of; equal inputs give equal manifests."""

    source: dict[str, str | None]
    tokenizer: str
    """SHA-256 of the tokenizer."""
    vocabulary: int
    dtype: str
    options: dict[str, Any]
    documents_read: int
    documents_empty: int
    """None, the empty string, or blanks only."""
    documents_skipped: int
    """Beyond max_train_samples or max_eval_samples."""
    splits: dict[str, SplitRecord]
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
            DataError: the folder holds no prepared data, another format, or files of another size.
        """
        manifest = _read_manifest(folder)
        prepared = cls(folder=folder, manifest=manifest)
        for split, record in manifest.splits.items():
            _check_size(folder / f"{split}.bin", record.tokens_written * np.dtype(manifest.dtype).itemsize)
            _check_size(folder / f"{split}.ends", record.documents * np.dtype("<u8").itemsize)
        return prepared

    def has(self, split: str) -> bool:
        """Whether there are documents in this split."""
        return split in self.manifest.splits

    def tokens(self, split: str) -> Any:
        """All tokens of a split, a read-only view of the file, of shape (tokens,)."""
        dtype = np.dtype(self.manifest.dtype)
        if not self.manifest.splits[split].tokens_written:
            return np.zeros(0, dtype)  # An empty file cannot be mapped.
        return np.memmap(self._path(split), dtype=dtype, mode="r")

    def blocks(self, split: str, block_size: int) -> Blocks:
        """The blocks of a split, a read-only view of the file, of shape (blocks, block_size)."""
        count = self.count(split, block_size)
        blocks: Blocks = self.tokens(split)[: count.tokens_kept].reshape(count.blocks, block_size)
        return blocks

    def count(self, split: str, block_size: int) -> BlockCount:
        """How many blocks there are, and how many tokens that keeps and drops."""
        tokens = self.manifest.splits[split].tokens_written
        blocks, dropped = divmod(tokens, block_size)
        return BlockCount(blocks=blocks, tokens_kept=blocks * block_size, tokens_dropped=dropped)

    def bytes_per_token(self, split: str) -> float:
        """Bytes of text for each token of the split, end-of-sequence tokens included."""
        record = self.manifest.splits[split]
        return record.bytes / record.tokens_written

    def ledger(self, block_size: int) -> dict[str, Any]:
        """Where every document and every token went, for people and programs."""
        splits = {
            split: {
                "documents": record.documents,
                "tokens": record.tokens,
                "eos_added": record.eos_added,
                **asdict(self.count(split, block_size)),
            }
            for split, record in self.manifest.splits.items()
        }
        totals = {name: getattr(self.manifest, f"documents_{name}") for name in ("read", "empty", "skipped")}
        return {"documents": totals, "block_size": block_size, "splits": splits}

    def _path(self, split: str) -> Path:
        return self.folder / f"{split}.bin"


class SplitWriter:
    """Writes the tokens of a split, document by document, in constant memory; a context, so that no file stays open."""

    def __init__(self, folder: Path, split: str, dtype: str) -> None:
        self.dtype = np.dtype(dtype)
        self.documents = self.bytes = self.tokens = self.eos_added = 0
        self._tokens = _HashedFile(folder / f"{split}.bin")
        self._ends = _HashedFile(folder / f"{split}.ends")
        self._pending: list[list[int]] = []

    def add(self, ids: list[int], *, eos: list[int], size: int) -> None:
        """Add a document: its ids, the end-of-sequence tokens after it, and its size in bytes."""
        self.documents += 1
        self.bytes += size
        self.tokens += len(ids)
        self.eos_added += len(eos)
        self._pending.append(ids + eos)
        if len(self._pending) == FLUSH_DOCUMENTS:
            self._flush()

    def __enter__(self) -> "SplitWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._tokens.close()
        self._ends.close()

    def finish(self) -> SplitRecord:
        """Write what is left, make sure that it is on the disk, and say what it is."""
        self._flush()
        return SplitRecord(
            documents=self.documents,
            bytes=self.bytes,
            tokens=self.tokens,
            eos_added=self.eos_added,
            sha256=self._tokens.finish(),
            ends_sha256=self._ends.finish(),
        )

    def _flush(self) -> None:
        lengths = np.fromiter(map(len, self._pending), np.int64, len(self._pending))
        flat = np.fromiter(chain.from_iterable(self._pending), self.dtype, int(lengths.sum()))
        self._ends.write((self._written + np.cumsum(lengths)).astype("<u8"))
        self._tokens.write(flat)
        self._pending.clear()

    @property
    def _written(self) -> int:
        return self._tokens.size // self.dtype.itemsize


class _HashedFile:
    """A file that is hashed while it is written."""

    def __init__(self, path: Path) -> None:
        self.size = 0
        self._digest = hashlib.sha256()
        self._file: BinaryIO = path.open("wb")

    def write(self, array: Any) -> None:
        self._digest.update(array.data)
        self.size += self._file.write(array.data)

    def finish(self) -> str:
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._digest.hexdigest()

    def close(self) -> None:
        self._file.close()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest as the last thing, so that a folder that has one is whole."""
    temporary = folder / f".{MANIFEST}"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(asdict(manifest), file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(folder / MANIFEST)


def _read_manifest(folder: Path) -> Manifest:
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise DataError(f"{folder} has format {content['format']}, this version reads {FORMAT}: {AGAIN}")
        splits = {split: SplitRecord(**record) for split, record in content.pop("splits").items()}
        return Manifest(splits=splits, **content)
    except OSError:
        raise DataError(
            f"{folder} holds no prepared data ({MANIFEST} is missing): write some with `clm prepare`"
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{folder / MANIFEST} is damaged ({error}): {AGAIN}") from None


def _check_size(path: Path, expected: int) -> None:
    size = path.stat().st_size if path.is_file() else 0
    if size != expected:
        raise DataError(f"{path} has {size} bytes where {MANIFEST} says {expected}: {AGAIN}")
