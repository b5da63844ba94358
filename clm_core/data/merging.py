"""Merges shards that several machines prepared, byte for byte into what one machine would have written."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from clm_core.data.cache import Content, filling, reserved
from clm_core.data.manifest import Manifest, SplitEntry, check_balance, write_manifest
from clm_core.data.prepared import Prepared
from clm_core.data.split_writer import SplitWriter
from clm_core.data.tokenization import Tokens
from clm_core.errors import DataError
from clm_core.shards import Shard

DOCUMENTS = 10_000
"""Documents taken from each shard at a time, so that memory is bounded."""


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
        raise DataError(f"of the {count} shards, {', '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing")
    return [found[number] for number in sorted(found)]


def _of_whole(manifest: Manifest) -> dict[str, object]:
    """What all shards of the same data have in common, including their number."""
    return {
        "documents": manifest.source,
        "tokenizer": manifest.tokenizer,
        "options": {**manifest.options, "shard": Shard.parse(manifest.options["shard"]).count},
        "documents read": manifest.documents_read,
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
    check_balance(whole)
    return whole


def _join(parts: Sequence[Prepared], manifest: Manifest, target: Path) -> None:
    with filling(target) as folder:
        entries = {}
        for split, entry in manifest.splits.items():
            with SplitWriter(folder, split, dtype=manifest.dtype, eos=[]) as writer:
                for first in range(0, parts[0].manifest.splits[split].documents, DOCUMENTS):
                    writer.add(_dealt([_slice(part, split, first) for part in parts]), size=0)
                written = writer.finish()
            entries[split] = replace(entry, sha256=written.sha256, ends_sha256=written.ends_sha256)
        write_manifest(folder, replace(manifest, splits=entries))


def _slice(part: Prepared, split: str, first: int) -> Tokens:
    """Some documents of a shard, from the `first`, with their end-of-sequence tokens."""
    ends = part.ends(split)
    stops = ends[first : first + DOCUMENTS].astype(np.int64)
    start = int(ends[first - 1]) if first else 0
    lengths = np.diff(stops, prepend=start)
    return Tokens(part.tokens(split)[start : start + int(lengths.sum())].astype(np.uint32), lengths)


def _dealt(parts: Sequence[Tokens]) -> Tokens:
    """Documents in their original order: the first of each shard, then the second of each.

    Of shards [a0 a1] and [b0 b1]: a0 b0 a1 b1. Each token moves by as much as its document does.
    """
    count = sum(len(part.lengths) for part in parts)
    lengths = np.zeros(count, np.int64)
    for index, part in enumerate(parts):
        lengths[index :: len(parts)] = part.lengths
    starts = np.cumsum(lengths) - lengths
    ids = np.zeros(int(lengths.sum()), np.uint32)
    for index, part in enumerate(parts):
        own = np.cumsum(part.lengths) - part.lengths
        shift = np.repeat(starts[index :: len(parts)] - own, part.lengths)
        ids[np.arange(len(part.ids)) + shift] = part.ids
    return Tokens(ids, lengths)
