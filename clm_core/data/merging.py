"""Merges shards that several machines prepared, byte for byte into what one machine would have written."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clm_core.counts import with_noun
from clm_core.data.cache import Content, filling, reserved
from clm_core.data.manifest import TRAIN, VALIDATION, Manifest, Mask, SplitEntry, check_balance, write_manifest
from clm_core.data.named_files import added, is_by_file
from clm_core.data.prepared import Prepared
from clm_core.data.routing import check_splits
from clm_core.data.split_writer import SplitWriter
from clm_core.data.tokenization import Tokens
from clm_core.errors import DataError
from clm_core.shards import Shard

Numbers = npt.NDArray[np.int64]

DOCUMENTS, TOKENS = 100_000, 2**22
"""The most documents that are in memory at a time, of all shards together, and the most tokens; or one document."""


def merge(
    folders: Sequence[Path], target: Path | None, *, overwrite: bool, say: Callable[[str], None]
) -> tuple[Prepared, bool]:
    """Merge all shards into `target`, or the cache; the second value says whether the result was there already.

    Raises:
        DataError: a folder contains no shard or a damaged one, or the shards are not all of the same data.
        OutputError: the target cannot be written, or contains something else.
    """
    parts = _in_order(folders)
    manifest = _whole([part.manifest for part in parts])
    with reserved(Content.of(manifest), target, overwrite=overwrite, say=say) as output:
        if output.found:
            return output.found, True
        _join(parts, manifest, output.folder)
        return Prepared.open(output.folder), False


def _in_order(folders: Sequence[Path]) -> list[Prepared]:
    """The shards by their numbers; all of them, and each once."""
    found: dict[int, Prepared] = {}
    for folder in folders:
        part = Prepared.open(folder)
        part.verify()
        if part.shard is None:
            raise DataError(f"{folder} is not a shard of prepared data: `clm prepare --shard` writes shards")
        first = next(iter(found.values()), part)
        if _of_whole(part.manifest) != _of_whole(first.manifest):
            raise DataError(f"{folder} and {first.folder} are not shards of the same data: {_difference(part, first)}")
        if other := found.get(part.shard.number):
            raise DataError(f"{folder} and {other.folder} are both shard {part.shard}")
        found[part.shard.number] = part
    count = max((part.shard.count for part in found.values() if part.shard), default=1)
    if absent := [str(Shard(number, count)) for number in range(1, count + 1) if number not in found]:
        raise DataError(
            f"of the {with_noun(count, 'shard')}, {', '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing"
        )
    return [found[number] for number in sorted(found)]


def _of_whole(manifest: Manifest) -> dict[str, object]:
    """What all shards of the same data have in common, including their number."""
    by_file = is_by_file(manifest.options)
    return {
        "options": {**manifest.options, "shard": Shard.parse(manifest.options["shard"]).count},
        "tokenizer": manifest.tokenizer,
        "lists of files": manifest.source.get("files"),
        "documents": None if by_file else manifest.source,
        "documents read": None if by_file else manifest.documents_read,
    }


def _difference(part: Prepared, other: Prepared) -> str:
    one, two = _of_whole(part.manifest), _of_whole(other.manifest)
    return f"their {next(name for name in one if one[name] != two[name])} differ"


def _whole(parts: Sequence[Manifest]) -> Manifest:
    """The manifest of the merged data, without what is known only once it is written."""
    splits = {
        split: SplitEntry(
            documents=sum(part.splits[split].documents for part in parts),
            bytes=sum(part.splits[split].bytes for part in parts),
            tokens=sum(part.splits[split].tokens for part in parts),
            eos_added=sum(part.splits[split].eos_added for part in parts),
            largest_id=max(part.splits[split].largest_id for part in parts),
            sha256="",
            ends_sha256="",
        )
        for split in parts[0].splits
    }
    engines = ", ".join(dict.fromkeys(part.engine for part in parts))
    options = {**parts[0].options, "shard": None}
    whole = replace(parts[0], engine=engines, options=options, documents_elsewhere=0, splits=splits)
    whole = _of_files(parts, whole) if is_by_file(options) else whole
    check_balance(whole)
    return whole


def _of_files(parts: Sequence[Manifest], whole: Manifest) -> Manifest:
    """The manifest of the merged data, where each shard knows of its own files alone."""
    source = {
        split: None if whole.source[split] is None else added(str(part.source[split]) for part in parts)
        for split in (TRAIN, VALIDATION)
    }
    counts = ("documents_read", "documents_empty", "documents_skipped")
    totals = {name: sum(getattr(part, name) for part in parts) for name in counts}
    documents = {split: entry.documents for split, entry in whole.splits.items()}
    check_splits(documents, "the shards", read=totals["documents_read"])
    return replace(whole, source=source, **totals)


def _join(parts: Sequence[Prepared], manifest: Manifest, target: Path) -> None:
    with filling(target) as folder:
        entries = {}
        for split, entry in manifest.splits.items():
            with SplitWriter(folder, split, dtype=manifest.dtype, eos=[]) as writer:
                for group in [[part] for part in parts] if is_by_file(manifest.options) else [parts]:
                    for tokens in _dealt(group, split):
                        writer.add(tokens, size=0)
                written = writer.finish()
            entries[split] = replace(
                entry, sha256=written.sha256, ends_sha256=written.ends_sha256, mask=_whole_mask(parts, split, written)
            )
        write_manifest(folder, replace(manifest, splits=entries))


def _whole_mask(parts: Sequence[Prepared], split: str, written: SplitEntry) -> Mask | None:
    """The entry of the mask that was written, with the bytes that count in all shards."""
    entries = [part.manifest.splits[split] for part in parts]
    return written.mask and replace(written.mask, bytes=sum((each.mask or each).bytes for each in entries))


def _dealt(parts: Sequence[Prepared], split: str) -> Iterator[Tokens]:
    """Documents with their end-of-sequence tokens, in their original order: one of each shard in turn.

    Of shards [a0 a1] and [b0 b1]: a0 b0 a1 b1.
    """
    end = sum(part.manifest.splits[split].documents for part in parts)
    for first in range(0, end, DOCUMENTS):
        starts, lengths = _places(parts, split, first, min(first + DOCUMENTS, end))
        for cut in _cuts(lengths):
            yield _gathered(parts, split, first + cut.start, starts[cut], lengths[cut])


def _cuts(lengths: Numbers) -> Iterator[slice]:
    """Documents of these lengths, cut where they have too many tokens."""
    totals, start = np.cumsum(lengths), 0
    while start < len(lengths):
        before = totals[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(totals, before + TOKENS, side="right")))
        yield slice(start, stop)
        start = stop


def _places(parts: Sequence[Prepared], split: str, first: int, stop: int) -> tuple[Numbers, Numbers]:
    """Where each document from `first` to `stop` starts in the file of its shard, and how many tokens it has."""
    starts, lengths = np.zeros((2, stop - first), np.int64)
    for index in range(first, min(first + len(parts), stop)):
        number, shard = divmod(index, len(parts))
        own = slice(index - first, None, len(parts))
        count = len(lengths[own])
        # From the end of the document before.
        ends = _read(parts[shard], f"{split}.ends", "<u8", max(0, number - 1), number + count).astype(np.int64)
        ends = ends if number else np.concatenate([[0], ends])
        starts[own], lengths[own] = ends[:-1], np.diff(ends)
    return starts, lengths


def _gathered(parts: Sequence[Prepared], split: str, first: int, starts: Numbers, lengths: Numbers) -> Tokens:
    """The tokens of documents, of which `first` is the number of the first; those of a shard lie side by side there."""
    found: list[Any] = []
    masks: list[Any] = []
    has_masks = any(part.manifest.splits[split].mask for part in parts)
    sources = np.zeros(len(lengths), np.int64)  # Where each document starts in `found`.
    read = 0
    for offset in range(min(len(parts), len(lengths))):
        own = slice(offset, None, len(parts))
        start, size = int(starts[offset]), int(lengths[own].sum())
        part = parts[(first + offset) % len(parts)]
        found.append(_read(part, f"{split}.bin", part.manifest.dtype, start, start + size))
        if has_masks:
            masks.append(_mask(part, split, start, start + size))
        sources[own] = starts[own] - start + read
        read += size
    ids = np.concatenate(found).astype(np.uint32)
    counts = np.concatenate(masks) != 0 if masks else None
    if len(parts) == 1:
        return Tokens(ids, lengths, counts)
    moved = np.arange(read) + np.repeat(sources - (np.cumsum(lengths) - lengths), lengths)
    return Tokens(ids[moved], lengths, None if counts is None else counts[moved])


def _mask(part: Prepared, split: str, start: int, stop: int) -> Any:
    if part.manifest.splits[split].mask is None:  # Of a shard in which all tokens count, such as one without documents.
        return np.ones(stop - start, np.uint8)
    return _read(part, f"{split}.mask", "u1", start, stop)


def _read(part: Prepared, name: str, dtype: str, start: int, stop: int) -> Any:
    """Entries of a file: read, not mapped, so that its pages do not stay in memory, nor the files open."""
    with (part.folder / name).open("rb") as file:
        return np.fromfile(file, dtype, stop - start, offset=start * np.dtype(dtype).itemsize)
