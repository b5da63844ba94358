"""The manifest of prepared data: what went in and what came out, written last and sealed."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

import numpy as np

from clm_core import durable
from clm_core.counts import with_noun
from clm_core.durable.checksums import Listed, is_sealed, read_record, seal
from clm_core.errors import DataError
from clm_core.shards import Shard

AGAIN = "prepare again, with --overwrite-cache"
FORMAT = 2
MANIFEST = "manifest.json"
TRAIN, VALIDATION = "train", "validation"
NANOGPT = "val.bin"
TYPES = ("<u2", "<u4")
"""Of the token files."""

LEFT_OUT = {
    "empty": "without text",
    "skipped": "over the limits",
    "elsewhere": "in other shards",
}
"""Why a document is in no split: the name in the manifest and the ledger, and the words for people."""

Record = TypeVar("Record")


@dataclass(frozen=True, kw_only=True)
class Mask:
    """What of a split counts, where that is not all of it."""

    sha256: str
    """Of the file with a byte for each token, 1 if it counts."""
    tokens: int
    """Tokens that do not count."""
    bytes: int
    """Bytes of what counts, in UTF-8."""


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
    mask: Mask | None = None
    """None where all tokens count; a manifest has it only if it is there, as data without it are of an earlier clm."""

    @property
    def tokens_written(self) -> int:
        """All tokens in the file."""
        return self.tokens + self.eos_added - self.tokens_dropped

    @property
    def content(self) -> str:
        """SHA-256 of the tokens, and of which of them count."""
        if self.mask is None:
            return self.sha256
        return hashlib.sha256(f"{self.sha256} {self.mask.sha256}".encode()).hexdigest()


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
    sha256: str | None = None
    """The digest of all else in it; None before it is written, and in one of an earlier clm."""

    @property
    def files(self) -> Listed:
        """The size and the SHA-256 of each file, by its name."""
        width = np.dtype(self.dtype).itemsize
        found = {}
        for split, entry in self.splits.items():
            found[f"{split}.bin"] = {"size": entry.tokens_written * width, "sha256": entry.sha256}
            found[f"{split}.ends"] = {"size": entry.documents * 8, "sha256": entry.ends_sha256}
            if entry.mask:
                found[f"{split}.mask"] = {"size": entry.tokens_written, "sha256": entry.mask.sha256}
        return found


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest last, so that a folder that has one is complete."""
    if VALIDATION in manifest.splits and np.dtype(manifest.dtype).itemsize == 2:
        _name_again(folder / f"{VALIDATION}.bin", folder / NANOGPT)
    durable.replace(folder / MANIFEST, to_text(manifest))


def to_text(manifest: Manifest) -> str:
    """A manifest as the content of its file, sealed."""
    content = asdict(manifest)
    for entry in content["splits"].values():
        if entry["mask"] is None:
            del entry["mask"]
    return json.dumps(seal(content), indent=2)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of prepared data.

    Raises:
        DataError: there is no manifest, or it is damaged, was changed, or is of another format.
    """
    file = folder / MANIFEST
    try:
        content = read_record(file)
        if content["format"] != FORMAT:
            raise DataError(f"{folder} has format {content['format']}, but this version reads {FORMAT}: {AGAIN}")
        if content.get("sha256") is not None and not is_sealed(content):
            raise ValueError("it was changed after it was written")
        splits = {split: _entry(entry) for split, entry in content["splits"].items()}
        return _checked(_typed(Manifest, {**content, "splits": splits}))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{folder} contains no prepared data ({MANIFEST} is missing): prepare some with `clm prepare`"
        ) from None
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror or error}): {AGAIN}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{file} is damaged ({error}): {AGAIN}") from None


def contradictions(manifest: Manifest, largest: Mapping[str, int]) -> list[str]:
    """What a manifest says that cannot be, a line for each; `largest` has the largest id in the file of each split."""
    found = [] if is_balanced(manifest) else [f"{MANIFEST} does not say where all documents are that it counts"]
    for split, entry in manifest.splits.items():
        if entry.largest_id != largest[split]:
            found.append(f"{MANIFEST} has largest_id {entry.largest_id} for {split}, whose file has {largest[split]}")
        if entry.eos_added not in (0, entry.documents):
            found.append(
                f"{MANIFEST} has eos_added {entry.eos_added} for {split} of {with_noun(entry.documents, 'document')}"
            )
    return found


def check_balance(manifest: Manifest) -> None:
    """Stop if a document got lost between reading and writing: a bug, not an error in the input."""
    if not is_balanced(manifest):
        raise RuntimeError(f"the ledger does not balance: {manifest}")


def is_balanced(manifest: Manifest) -> bool:
    """Whether every document that was read is in a split, or left out for a reason."""
    used = sum(entry.documents for entry in manifest.splits.values())
    left_out: int = sum(getattr(manifest, f"documents_{why}") for why in LEFT_OUT)
    return manifest.documents_read == used + left_out


def documents_read(documents: Mapping[str, int]) -> str:
    """What became of documents, in words: those of a ledger."""
    left_out = [f"{documents[why]:,} {words}" for why, words in LEFT_OUT.items() if documents[why]]
    used = documents["read"] - sum(documents[why] for why in LEFT_OUT)
    if not left_out:
        return with_noun(used, "document")
    return f"{used:,} of {with_noun(documents['read'], 'document')} read ({', '.join(left_out)})"


def _entry(content: dict[str, Any]) -> SplitEntry:
    if "mask" in content:
        content = {**content, "mask": _typed(Mask, content["mask"])}
    return _typed(SplitEntry, content)


def _typed(cls: type[Record], content: dict[str, Any]) -> Record:
    """A record whose entries have the types that its class declares."""
    for name, declared in get_type_hints(cls).items():
        kind = dict if get_origin(declared) is dict else declared
        if name in content and not isinstance(content[name], kind):
            raise TypeError(f"{name} is {content[name]!r}")
    return cls(**content)


def _checked(manifest: Manifest) -> Manifest:
    """A manifest that says nothing impossible, whoever wrote it."""
    if manifest.dtype not in TYPES or not {*manifest.splits} <= {TRAIN, VALIDATION}:
        raise ValueError(f"dtype {manifest.dtype}, splits {', '.join(manifest.splits)}")
    parts = [part for entry in manifest.splits.values() for part in (entry, entry.mask) if part is not None]
    numbers = [number for part in parts for number in vars(part).values()]
    sizes = [listed["size"] for listed in manifest.files.values()]
    if min((number for number in (*numbers, *sizes) if isinstance(number, int)), default=0) < -1:
        raise ValueError("a number is below 0")
    Shard.parse(manifest.options.get("shard"))
    return manifest


def _name_again(path: Path, other: Path) -> None:
    """Give a file a second name, or a copy where the file system has no links."""
    try:
        other.hardlink_to(path)
    except (OSError, NotImplementedError):
        shutil.copyfile(path, other)
        durable.sync_file(other)
