"""Prepares data from start to end: split, tokenize, add EOS between documents, pack, write, cache.

Prepared data is cached under a key derived from everything its content depends on: the documents, the tokenizer
and the options; never the number of threads or the engine.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from clm_core.counts import with_noun
from clm_core.data.cache import Content, filling, find, reserved
from clm_core.data.chat import ChatTemplate, renderer
from clm_core.data.documents import has_prompts, masks_prompts
from clm_core.data.engines import Engine, EngineDiffersError, Kind, choose_engine, reference_engine
from clm_core.data.manifest import TRAIN, VALIDATION, Manifest, check_balance, write_manifest
from clm_core.data.named_files import BY_FILE, is_by_file
from clm_core.data.packing import GUIDE, STREAM, GuideWriter
from clm_core.data.prepared import Prepared
from clm_core.data.routing import ELSEWHERE, EMPTY, SKIPPED, UNREAD, Limits, Router
from clm_core.data.sources import Sources, open_sources
from clm_core.data.split_writer import SplitWriter
from clm_core.data.tokenization import Tokens, digest_tokenizer, tokenize
from clm_core.durable.locks import cache_folder
from clm_core.errors import DataError, OptionError
from clm_core.models.templates import template_of
from clm_core.models.vocabulary import count_ids
from clm_core.shards import Shard

CONTENT_OPTIONS = (
    "append_eos",
    "validation_split_percentage",
    "max_train_samples",
    "max_train_tokens",
    "max_eval_samples",
    "streaming",
    "seed",
)
"""The options that decide the content of prepared data, besides the documents and the tokenizer."""

PACKING_OPTIONS = ("packing", "block_size", "preprocessing_num_workers")
"""Those that decide it too if the data is packed as in the guide."""

DERIVED_DOCUMENTS = 10_000
"""Documents copied at a time from data that was prepared with the other setting of append_eos."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What to prepare, and how."""

    sources: Sources
    tokenizer: Any
    tokenizer_name: str
    content: Content
    vocabulary: int
    """How many ids there are, including those that the tokenizer leaves out."""
    eos: list[int]
    """The token after each document."""
    kind: Kind
    """What documents are to the engine."""

    @classmethod
    def make(cls, options: Any, tokenizer: Any) -> "Preparation":
        """Find the data that the options name, and decide how to prepare it.

        Raises:
            OptionError: the options contradict each other, or the tokenizer.
            DataError: the data cannot be found or read.
        """
        _check_shard(options)
        sources = open_sources(options)
        options = replace(options, **sources.taken)
        masks = masks_prompts(options)
        chat = ChatTemplate(tokenizer) if options.messages_column else None
        if chat:
            sources = sources.of(renderer(chat, masks=masks))
        return cls(
            sources=sources,
            tokenizer=tokenizer,
            tokenizer_name=options.tokenizer_name or options.model_name_or_path or "",
            content=Content(
                source={
                    TRAIN: sources.train.fingerprint if sources.train else None,
                    VALIDATION: sources.validation.fingerprint if sources.validation else None,
                    **({"files": sources.files} if sources.files else {}),
                },
                tokenizer=digest_tokenizer(tokenizer),
                options=_content_options(options) | _packing(options) | (chat.identity() if chat else {}),
            ),
            vocabulary=count_ids(tokenizer),
            eos=_eos(tokenizer, chat) if options.append_eos else [],
            kind=Kind(
                split_special_tokens=options.packing != GUIDE,
                texts="rendered" if chat else "prompted" if has_prompts(options) else "whole",
                masks=masks,
            ),
        )

    @property
    def dtype(self) -> str:
        """Of the token files: two bytes where every id fits."""
        return "<u2" if self.vocabulary <= 2**16 else "<u4"

    @property
    def is_guide(self) -> bool:
        """Whether the rows are the guide's."""
        return self.content.options.get("packing") == GUIDE

    @property
    def is_shard_of_files(self) -> bool:
        """Whether the documents of other shards are not known."""
        return is_by_file(self.content.options) and self.content.options["shard"] is not None

    def writer(self, folder: Path, split: str) -> SplitWriter:
        """The writer of a split, by how it is packed."""
        if not self.is_guide:
            return SplitWriter(folder, split, dtype=self.dtype, eos=self.eos)
        size, processes = (self.content.options[name] for name in ("block_size", "preprocessing_num_workers"))
        return GuideWriter(folder, split, dtype=self.dtype, eos=self.eos, block_size=size, processes=processes)

    def with_other_eos(self) -> Content:
        """What differs from this in nothing but append_eos."""
        options = self.content.options
        return replace(self.content, options={**options, "append_eos": not options["append_eos"]})


@dataclass(frozen=True, kw_only=True)
class Listener:
    """Progress callbacks of a preparation."""

    advance: Callable[[int], None] = lambda documents: None
    """Called with the number of further documents that are done."""
    say: Callable[[str], None] = lambda line: None
    """Called with a notice."""


def prepare(
    preparation: Preparation,
    folder: Path | None = None,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    once: bool = False,
    listener: Listener | None = None,
) -> tuple[Prepared, bool]:
    """Prepare data in `folder`, or in the cache; the second value says whether it was there already.

    Existing data is verified, if need be only `once`, and prepared again if it is damaged.

    Raises:
        DataError: the data cannot be read, or a split has no text.
        OutputError: the folder cannot be written, or contains something else.
    """
    told = listener or Listener()
    with reserved(preparation.content, folder, overwrite=overwrite, say=told.say, once=once) as output:
        if output.found:
            return output.found, True
        _write(preparation, output.folder, workers, told)
        return Prepared.open(output.folder), False


def check_blocks(prepared: Prepared, block_size: int, splits: list[str]) -> None:
    """Make sure that each split has at least one block.

    Raises:
        DataError: one has none; with the largest block_size that works for all.
    """
    short = next((split for split in splits if not prepared.count(split, block_size).blocks), None)
    if short is None:
        return
    if prepared.packed_for:
        raise DataError(
            f"no batch of 1,000 documents for {short} fills one block of {block_size}: use a smaller --block-size, "
            "fewer --preprocessing-num-workers, --packing stream, or more text"
        )
    tokens = {split: prepared.manifest.splits[split].tokens_written for split in splits}
    largest = min(tokens.values())
    way_out = f"the largest --block-size that works is {largest}" if largest > 1 else "more text is needed"
    raise DataError(
        f"the {with_noun(tokens[short], 'token')} for {short} cannot fill one block of {block_size}: {way_out}"
    )


def _check_shard(options: Any) -> None:
    """Reject options that no shard can follow alone."""
    if not getattr(options, "shard", None):
        return
    limits = ("max_train_samples", "max_eval_samples") if is_by_file(vars(options)) else ()
    for name in ("max_train_tokens", *limits):
        if getattr(options, name):
            what, way_out = ("tokens", "") if name == "max_train_tokens" else ("documents", "; leave shard_by file out")
            raise OptionError(
                f"shard cannot be combined with {name}: a shard cannot know how many {what} the others have{way_out}"
            )
    if options.packing == GUIDE:
        raise OptionError(
            "shard cannot be combined with packing guide: a shard cannot know which documents share a batch"
        )


def _eos(tokenizer: Any, chat: ChatTemplate | None = None) -> list[int]:
    if tokenizer.eos_token_id is None:
        raise OptionError("append_eos: this tokenizer has no end-of-sequence token; use --no-append-eos")
    # A template that puts the token around each document, as OPT's and BERT's do, has separated them already.
    separated = tokenizer.eos_token_id in template_of(tokenizer).around([])
    if chat:  # Which puts its own tokens around a conversation.
        separated = chat.ends_with(tokenizer.eos_token)
    return [] if separated else [tokenizer.eos_token_id]


def _write(preparation: Preparation, target: Path, workers: int | None, listener: Listener) -> None:
    """Copy from the same data with the other append_eos, or tokenize with the fast engine or the reference."""
    sibling = preparation.with_other_eos()
    if not preparation.is_guide and (other := find(sibling, cache_folder() / sibling.key(), listener.say)):
        _derive(preparation, other, target)
        return
    try:
        engine = choose_engine(preparation.tokenizer, workers, listener.say, preparation.kind)
        _fill(preparation, target, engine, listener)
    except EngineDiffersError as error:
        listener.say(f"fastokens is not used; tokenizing everything again without it: {error}")
        engine = reference_engine(preparation.tokenizer, workers, preparation.kind)
        _fill(preparation, target, engine, listener)


def _fill(preparation: Preparation, target: Path, engine: Engine, listener: Listener) -> None:
    """Tokenize."""
    router = _router(preparation)
    with filling(target) as folder, ExitStack() as stack:
        writers = {split: stack.enter_context(preparation.writer(folder, split)) for split in router.splits}
        for part in tokenize(router.documents(), engine.encode, engine.threads):
            destinations = np.array(router.settle(part))
            for split, writer in writers.items():
                chosen = destinations == split
                counted = None if part.counted is None else int(part.counted[chosen].sum())
                writer.add(part.tokens.of(chosen), size=int(part.sizes[chosen].sum()), counted=counted)
            listener.advance(len(destinations))
        if not preparation.is_shard_of_files:
            router.check_complete()
        manifest = Manifest(
            source=preparation.content.source,
            tokenizer=preparation.content.tokenizer,
            tokenizer_name=preparation.tokenizer_name,
            engine=engine.name,
            vocabulary=preparation.vocabulary,
            dtype=preparation.dtype,
            options=preparation.content.options,
            documents_read=sum(router.counts.values()) - router.counts[UNREAD],
            documents_empty=router.counts[EMPTY],
            documents_skipped=router.counts[SKIPPED],
            documents_elsewhere=router.counts[ELSEWHERE],
            splits={split: writer.finish() for split, writer in writers.items()},
        )
        check_balance(manifest)
        write_manifest(folder, manifest)
        if preparation.is_guide:  # It is packed in its blocks.
            check_blocks(Prepared.open(folder), preparation.content.options["block_size"], router.splits)
        for split, writer in writers.items():
            if isinstance(writer, GuideWriter) and writer.short:
                listener.say(
                    f"{split}: {with_noun(writer.short, 'token')} dropped from batches that do not fill one block of "
                    f"{writer.block_size}; the guide makes a shorter row of each, which its collator pads"
                )


def _content_options(options: Any) -> dict[str, Any]:
    """What every preparation depends on; only `prepare` has shards, and `shard_by` is newer than data without it."""
    found = {name: getattr(options, name) for name in CONTENT_OPTIONS} | {"shard": getattr(options, "shard", None)}
    if is_by_file(vars(options)):
        found["shard_by"] = BY_FILE
    if has_prompts(options):
        found["completion_only_loss"] = masks_prompts(options)
    return found


def _packing(options: Any) -> dict[str, Any]:
    """What else decides the content, if anything; the guide without num_proc has one process."""
    if options.packing == STREAM:
        return {}
    return {name: getattr(options, name) or 1 for name in PACKING_OPTIONS}


def _router(preparation: Preparation) -> Router:
    options = preparation.content.options
    limits = Limits(
        documents={TRAIN: options["max_train_samples"], VALIDATION: options["max_eval_samples"]},
        tokens={TRAIN: options["max_train_tokens"]},
    )
    return Router(
        preparation.sources,
        seed=options["seed"],
        limits=limits,
        shard=Shard() if is_by_file(options) else Shard.parse(options["shard"]),
        keeps_blank=preparation.is_guide,
    )


def _derive(preparation: Preparation, other: Prepared, target: Path) -> None:
    """Copy data that was prepared with the other setting of append_eos, and insert the tokens or leave them out."""
    with filling(target) as folder:
        entries = {}
        for split, entry in other.manifest.splits.items():
            tokens, ends, mask = other.tokens(split), other.ends(split), other.mask(split)
            had = min(1, entry.eos_added)  # Tokens after each document: one, or none.
            with preparation.writer(folder, split) as writer:
                start = 0
                for first in range(0, entry.documents, DERIVED_DOCUMENTS):
                    stop = ends[first : first + DERIVED_DOCUMENTS].astype(np.int64)
                    lengths = np.diff(stop, prepend=start)
                    own = np.ones(int(stop[-1]) - start, bool)
                    own[stop - start - 1] = not had
                    ids = tokens[start : stop[-1]].astype(np.uint32)[own]
                    counts = None if mask is None else mask[start : stop[-1]][own] != 0
                    writer.add(Tokens(ids, lengths - had, counts), size=0)
                    start = int(stop[-1])
                written = writer.finish()
            entries[split] = replace(
                written,
                bytes=entry.bytes,
                mask=written.mask and entry.mask and replace(written.mask, bytes=entry.mask.bytes),
            )
        manifest = replace(other.manifest, options=preparation.content.options, splits=entries)
        check_balance(manifest)
        write_manifest(folder, manifest)
