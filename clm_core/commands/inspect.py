"""`clm inspect`: show prepared data: its ledger, document lengths, and a block with document boundaries."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from clm_core.commands import summary
from clm_core.commands.call import Call
from clm_core.config import InspectConfig, PreprocessingOptions, TokenizerOptions
from clm_core.counts import with_noun
from clm_core.data.masks import as_blocks
from clm_core.data.prepared import Prepared
from clm_core.data.tokenization import digest_tokenizer
from clm_core.errors import DataError, ModelError, OptionError
from clm_core.models.decoding import continuation
from clm_core.models.tokenizers import load_tokenizer
from clm_core.options import resolve
from clm_core.results import InspectionResult
from clm_core.screen.exit_codes import ExitCode

SHOWN_AFTER = 16
"""Tokens before a block that starts within a document; the first token of the block is decoded with them."""


def run(call: Call) -> ExitCode:
    """Carry out the command line."""
    config = resolve.inspection(call.given)
    with call.progress():
        result = inspect(call.folder, config)
    call.print(result, lambda: summary.of_inspection(result))
    return ExitCode.DONE


def inspect(folder: Path, config: InspectConfig) -> InspectionResult:
    """Describe a folder of prepared data.

    Raises:
        DataError: it contains none or, with `verify`, files that do not match their checksums.
        ModelError: the tokenizer cannot be found, or is another one.
        OptionError: there is no such block, or the data is packed in blocks of another size.
    """
    prepared = Prepared.open(folder)
    size = config.block_size or prepared.packed_for or PreprocessingOptions().block_size
    if config.verify:
        prepared.verify()
    splits = list(prepared.manifest.splits)
    if config.split not in splits:
        raise DataError(f"{folder} has no split {config.split!r}: it has {', '.join(splits)}")
    return InspectionResult(
        folder=folder,
        verified=config.verify,
        tokenizer_name=prepared.manifest.tokenizer_name,
        engine=prepared.manifest.engine,
        dtype=prepared.manifest.dtype,
        options=prepared.manifest.options,
        ledger=prepared.ledger(size),
        document_lengths={split: _lengths(prepared, split) for split in splits},
        block=_block(prepared, config, size) if _wanted(prepared, config, size) else None,
    )


def _wanted(prepared: Prepared, config: InspectConfig, size: int) -> bool:
    """Whether to show a block; if there are no blocks, block 0 is not an error."""
    has_blocks = prepared.count(config.split, size).blocks > 0
    return config.block is not None and (has_blocks or config.block > 0)


def _lengths(prepared: Prepared, split: str) -> dict[str, Any]:
    """Tokens of a document, EOS included: the extremes, the middle, and how many lie between powers of two."""
    lengths = np.diff(prepared.ends(split).astype(np.int64), prepend=0)
    if not len(lengths):  # A shard may have no documents of a split.
        return {"shortest": 0, "median": 0.0, "mean": 0.0, "longest": 0, "histogram": []}
    low = 2 ** np.arange(int(np.log2(max(1, lengths.max()))) + 1)
    counts = np.histogram(lengths, bins=[*low, 2 * low[-1]])[0]
    return {
        "shortest": int(lengths.min()),
        "median": float(np.median(lengths)),
        "mean": float(lengths.mean()),
        "longest": int(lengths.max()),
        "histogram": [
            {"from": int(start), "to": int(2 * start - 1), "documents": int(count)}
            for start, count in zip(low, counts, strict=True)
        ],
    }


def _block(prepared: Prepared, config: InspectConfig, size: int) -> dict[str, Any]:
    """A block as text, in pieces that end where documents end; special tokens are shown."""
    blocks, mask = as_blocks(prepared.tokens(config.split), size), prepared.mask(config.split)
    if config.block is None or config.block >= len(blocks):
        raise OptionError(
            f"block {config.block}: {config.split} has {with_noun(len(blocks), 'block')}, numbered from 0"
        )
    tokenizer = _tokenizer(prepared, config)
    start = config.block * size
    ends = prepared.ends(config.split).astype(np.int64)
    first, last = np.searchsorted(ends, [start, start + size - 1], side="right")
    cuts = [int(end) - start for end in ends[first:last]]
    own = np.ones(size, np.uint8) if mask is None else mask[start : start + size]
    pieces = [ids.tolist() for ids in np.split(blocks[config.block], cuts)]
    begun = max(int(ends[first - 1]) if first else 0, start - SHOWN_AFTER)
    before = [prepared.tokens(config.split)[begun:start].tolist(), *[[]] * len(cuts)]
    texts = [continuation(tokenizer, *pair, special=True) for pair in zip(before, pieces, strict=True)]
    marks = [_marks(tokenizer, *found) for found in zip(before, pieces, np.split(own, cuts), strict=True)]
    return {
        "split": config.split,
        "number": config.block,
        "pieces": [
            {"document": int(first) + i, "ends_here": i < len(cuts), "text": text}
            | ({} if mask is None else {"parts": marks[i]})
            for i, text in enumerate(texts)
            if pieces[i]
        ],
    }


def _marks(tokenizer: Any, before: list[int], ids: list[int], mask: Any) -> list[dict[str, Any]]:
    """The same text in parts that count, and others."""
    cuts = [0, *(np.flatnonzero(np.diff(mask)) + 1).tolist(), len(ids)]
    return [
        {
            "counts": bool(mask[start]),
            "text": continuation(tokenizer, [*before, *ids[:start]][-SHOWN_AFTER:], ids[start:end], special=True),
        }
        for start, end in pairwise(cuts)
        if start < end
    ]


def _tokenizer(prepared: Prepared, config: InspectConfig) -> Any:
    name = config.tokenizer_name or prepared.manifest.tokenizer_name
    tokenizer = load_tokenizer(TokenizerOptions(tokenizer_name=name))
    if digest_tokenizer(tokenizer) != prepared.manifest.tokenizer:
        raise ModelError(f"the tokenizer {name} is not the one the data was prepared with: give --tokenizer-name")
    return tokenizer
