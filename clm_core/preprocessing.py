"""Text to tokens, once for both frameworks: split, tokenize, put EOS between documents, count, keep.

What was prepared is kept in a cache under a key of everything that decides its content: the documents, the
tokenizer and the options; never the number of threads, nor the engine.
"""

import hashlib
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from clm_core.cache import cache_folder, check_replaceable, filling, locked
from clm_core.data import Sources, open_sources
from clm_core.engines import Engine, EngineDiffersError, choose_engine, reference_engine
from clm_core.errors import DataError, OptionError, OutputError
from clm_core.prepared import FORMAT, TRAIN, VALIDATION, Manifest, Prepared, read_manifest, write_manifest
from clm_core.routing import Router
from clm_core.split_writer import SplitWriter
from clm_core.tokenization import Tokens, digest_tokenizer, encoder, tokenize

CONTENT_OPTIONS = (
    "append_eos",
    "validation_split_percentage",
    "max_train_samples",
    "max_eval_samples",
    "seed",
)
"""The options that decide the content of prepared data, besides the documents and the tokenizer."""

DERIVED_DOCUMENTS = 10_000
"""Documents that are copied at a time from data prepared with the other policy for EOS."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides the content of prepared data."""

    sources: Sources
    tokenizer: Any
    tokenizer_name: str
    tokenizer_digest: str
    options: dict[str, Any]
    eos: list[int]

    @classmethod
    def make(cls, options: Any, tokenizer: Any) -> "Recipe":
        """Find the data that the options name, and what is to be done with them."""
        return cls(
            sources=open_sources(options),
            tokenizer=tokenizer,
            tokenizer_name=options.tokenizer_name or options.model_name_or_path or "",
            tokenizer_digest=digest_tokenizer(tokenizer),
            options={name: getattr(options, name) for name in CONTENT_OPTIONS},
            eos=_eos(tokenizer) if options.append_eos else [],
        )

    @property
    def source(self) -> dict[str, str | None]:
        """The fingerprints of the documents."""
        train, validation = self.sources.train, self.sources.validation
        return {
            TRAIN: train.fingerprint if train else None,
            VALIDATION: validation.fingerprint if validation else None,
        }

    @property
    def dtype(self) -> str:
        """Of the token files: two bytes where every id of the vocabulary fits."""
        return "<u2" if len(self.tokenizer) <= 2**16 else "<u4"

    def key(self) -> str:
        """A name for the content, under which the cache has it."""
        content = json.dumps([FORMAT, self.source, self.tokenizer_digest, self.options], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    def describes(self, manifest: Manifest) -> bool:
        """Whether these prepared data are what the recipe would make."""
        made_of = (manifest.source, manifest.tokenizer, manifest.options)
        return made_of == (self.source, self.tokenizer_digest, self.options)

    def with_other_eos(self) -> "Recipe":
        """The recipe that differs in nothing but append_eos."""
        return replace(self, options={**self.options, "append_eos": not self.options["append_eos"]})


@dataclass(frozen=True, kw_only=True)
class Listener:
    """Who is told how far a preparation got."""

    advance: Callable[[int], None] = lambda documents: None
    """So many more documents are done."""
    say: Callable[[str], None] = lambda line: None
    """Something out of the ordinary."""


def prepare(
    recipe: Recipe,
    folder: Path | None = None,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> tuple[Prepared, bool]:
    """Prepare data in `folder`, or in the cache; the second value says whether they were there already.

    What is there already is verified, and prepared again where it is damaged.

    Raises:
        DataError: the data cannot be read, or a split has no text.
        OutputError: the folder cannot be written, or holds something else.
    """
    listener = listener or Listener()
    target = folder or cache_folder() / recipe.key()
    with locked(target):
        found = None if overwrite else _find(recipe, target, listener)
        if found:
            return found, True
        mended = folder is None or _is_of(recipe, target)
        check_replaceable(target, overwrite=overwrite or mended)
        _write(recipe, target, workers, listener)
    return Prepared.open(target), False


def check_blocks(prepared: Prepared, block_size: int, splits: list[str]) -> None:
    """Make sure that each split has at least one block.

    Raises:
        DataError: one has none; with the largest block_size that works for all.
    """
    tokens = {split: prepared.manifest.splits[split].tokens_written for split in splits}
    short = next((split for split in splits if tokens[split] < block_size), None)
    if short is None:
        return
    largest = min(tokens.values())
    way_out = f"the largest --block-size that works is {largest}" if largest > 1 else "more text is needed"
    raise DataError(f"the {tokens[short]} tokens for {short} do not fill one block of {block_size}: {way_out}")


def _eos(tokenizer: Any) -> list[int]:
    if tokenizer.eos_token_id is None:
        raise OptionError("append_eos: this tokenizer has no end-of-sequence token; use --no-append-eos")
    ids = encoder(tokenizer)(["a"]).ids
    # A template that puts the token around each document, as OPT's and BERT's do, has separated them already.
    return [] if tokenizer.eos_token_id in (ids[0], ids[-1]) else [tokenizer.eos_token_id]


def _is_of(recipe: Recipe, folder: Path) -> bool:
    """Whether the folder says that it holds the data of the recipe; they may be damaged."""
    try:
        return recipe.describes(read_manifest(folder))
    except DataError:
        return False


def _find(recipe: Recipe, folder: Path, listener: Listener) -> Prepared | None:
    """The data of the recipe, if they are in the folder and whole."""
    if not _is_of(recipe, folder):
        return None
    try:
        prepared = Prepared.open(folder)
        prepared.verify()
    except DataError as error:
        listener.say(f"damaged since they were prepared: {error}")
        return None
    return prepared


def _write(recipe: Recipe, target: Path, workers: int | None, listener: Listener) -> None:
    """Write from the same data with the other policy for EOS, else with the fast engine, else with the reference."""
    try:
        sibling = recipe.with_other_eos()
        other = _find(sibling, cache_folder() / sibling.key(), listener)
        if other:
            _derive(recipe, other, target)
            return
        try:
            _fill(recipe, target, choose_engine(recipe.tokenizer, workers, listener.say), listener)
        except EngineDiffersError as error:
            listener.say(f"fastokens is not used, and all is tokenized again without it: {error}")
            _fill(recipe, target, reference_engine(recipe.tokenizer, workers), listener)
    except OSError as error:
        raise OutputError(f"cannot write prepared data to {target}: {error.strerror or error}") from None


def _fill(recipe: Recipe, target: Path, engine: Engine, listener: Listener) -> None:
    """Tokenize."""
    limits = {TRAIN: recipe.options["max_train_samples"], VALIDATION: recipe.options["max_eval_samples"]}
    router = Router(recipe.sources, seed=recipe.options["seed"], limits=limits)
    with filling(target) as folder, ExitStack() as stack:
        writers = {split: stack.enter_context(_writer(recipe, folder, split)) for split in router.splits}
        for part in tokenize(router.documents(), engine.encode, engine.threads):
            for split, writer in writers.items():
                chosen = part.splits == split
                writer.add(part.tokens.of(chosen), size=int(part.sizes[chosen].sum()))
            listener.advance(len(part.sizes))
        router.check_complete()
        manifest = Manifest(
            source=recipe.source,
            tokenizer=recipe.tokenizer_digest,
            tokenizer_name=recipe.tokenizer_name,
            engine=engine.name,
            vocabulary=len(recipe.tokenizer),
            dtype=recipe.dtype,
            options=recipe.options,
            documents_read=router.read,
            documents_empty=router.empty,
            documents_skipped=router.skipped,
            splits={split: writer.finish() for split, writer in writers.items()},
        )
        _check_balance(manifest)
        write_manifest(folder, manifest)


def _derive(recipe: Recipe, other: Prepared, target: Path) -> None:
    """Copy data that were prepared with the other policy for EOS, and put the tokens in, or leave them out."""
    with filling(target) as folder:
        records = {}
        for split, record in other.manifest.splits.items():
            had, tokens, ends = record.eos_added // record.documents, other.tokens(split), other.ends(split)
            with _writer(recipe, folder, split) as writer:
                start = 0
                for first in range(0, record.documents, DERIVED_DOCUMENTS):
                    stop = ends[first : first + DERIVED_DOCUMENTS].astype(np.int64)
                    lengths = np.diff(stop, prepend=start)
                    ids = tokens[start : stop[-1]].astype(np.uint32)
                    kept = np.delete(ids, stop - start - 1) if had else ids
                    writer.add(Tokens(kept, lengths - had), size=0)
                    start = int(stop[-1])
                records[split] = replace(writer.finish(), bytes=record.bytes)
        manifest = replace(other.manifest, options=recipe.options, splits=records)
        _check_balance(manifest)
        write_manifest(folder, manifest)


def _writer(recipe: Recipe, folder: Path, split: str) -> SplitWriter:
    return SplitWriter(folder, split, dtype=recipe.dtype, eos=recipe.eos)


def _check_balance(manifest: Manifest) -> None:
    """Stop if a document got lost between reading and writing: a fault of the program, not of the input."""
    used = sum(record.documents for record in manifest.splits.values())
    if manifest.documents_read != manifest.documents_empty + manifest.documents_skipped + used:
        raise RuntimeError(f"the ledger does not balance: {manifest}")
