"""Text to tokens to blocks, once for both frameworks: split, tokenize, put EOS between documents, count, keep.

What was prepared is kept in a cache under a key of everything that decides its content: the documents,
the tokenizer and the options; never the number of threads. The temporary folder of a preparation that
was interrupted is never taken for prepared data.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_core.data import Sources, is_held_out, open_sources
from clm_core.errors import DataError, OptionError, OutputError
from clm_core.prepared import (
    FILES,
    FORMAT,
    MANIFEST,
    TRAIN,
    VALIDATION,
    Manifest,
    Prepared,
    SplitWriter,
    write_manifest,
)
from clm_core.tokenization import Document, encoder, tokenize

Advance = Callable[[int], None]
"""Told how many more documents are done."""

CONTENT_OPTIONS = (
    "append_eos",
    "validation_split_percentage",
    "max_train_samples",
    "max_eval_samples",
    "seed",
)
"""The options that decide the content of prepared data, besides the documents and the tokenizer."""

TEMPORARY = ".clm-preparing-"
"""Begins the name of a folder that is being filled."""

ABANDONED = 24 * 60 * 60
"""Seconds without a write after which such a folder is taken for what a killed process left."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides the content of prepared data."""

    sources: Sources
    tokenizer: Any
    tokenizer_digest: str
    options: dict[str, Any]
    eos: list[int]

    @classmethod
    def make(cls, options: Any, tokenizer: Any) -> "Recipe":
        """Find the data that the options name, and what is to be done with them."""
        return cls(
            sources=open_sources(options),
            tokenizer=tokenizer,
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

    def key(self) -> str:
        """A name for the content, under which the cache has it."""
        content = json.dumps([FORMAT, self.source, self.tokenizer_digest, self.options], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    def describes(self, manifest: Manifest) -> bool:
        """Whether these prepared data are what the recipe would make."""
        made_of = (manifest.source, manifest.tokenizer, manifest.options)
        return made_of == (self.source, self.tokenizer_digest, self.options)


def prepare(
    recipe: Recipe,
    folder: Path | None = None,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    advance: Advance = lambda documents: None,
) -> tuple[Prepared, bool]:
    """Prepare data in `folder`, or in the cache; the second value says whether they were there already.

    Raises:
        DataError: the data cannot be read, or a split has no text.
        OutputError: the folder cannot be written, or holds something else.
    """
    target = folder or cache_folder() / recipe.key()
    if not overwrite and (target / MANIFEST).is_file():
        prepared = Prepared.open(target)
        if recipe.describes(prepared.manifest):
            return prepared, True
    _check_replaceable(target, overwrite)
    _write(recipe, target, workers, overwrite, advance)
    return Prepared.open(target), False


def cache_folder() -> Path:
    """Where prepared data are kept: CLM_CACHE, or `clm` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clm"
    return Path(os.environ.get("CLM_CACHE") or default)


def digest_tokenizer(tokenizer: Any) -> str:
    """SHA-256 of what a tokenizer does with text: the same in every version of transformers that loads it alike."""
    if tokenizer.is_fast:
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        content: list[Any] = [state[part] for part in ("added_tokens", "normalizer", "pre_tokenizer", "model")]
    else:
        content = [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())]
    # The versions write a template that adds nothing in different ways, so what it adds is taken in its place.
    content += [encoder(tokenizer)(["a"]), tokenizer.eos_token_id]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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
    ids = encoder(tokenizer)(["a"])[0]
    # A template that puts the token around each document, as OPT's and BERT's do, has separated them already.
    return [] if tokenizer.eos_token_id in (ids[0], ids[-1]) else [tokenizer.eos_token_id]


def _check_replaceable(target: Path, overwrite: bool) -> None:
    """Make sure that nothing but prepared data would be lost, and that only if this was asked for."""
    if not target.exists():
        return
    names = {path.name for path in target.iterdir()} if target.is_dir() else None
    if names is None or names - FILES or (names and MANIFEST not in names):
        raise OutputError(f"{target} is there already and is no folder of prepared data alone: choose another folder")
    if names and not overwrite:
        raise OutputError(f"{target} holds other prepared data: choose another folder, or --overwrite-cache")


def _write(recipe: Recipe, target: Path, workers: int | None, overwrite: bool, advance: Advance) -> None:
    """Fill a temporary folder beside the target, and put it in its place when it is whole."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target.parent)
        temporary = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{target.name}-", dir=target.parent))
    except OSError as error:
        raise OutputError(f"cannot write prepared data to {target}: {error.strerror}") from None
    try:
        _fill(recipe, temporary, workers, advance)
        temporary.chmod(0o755)  # mkdtemp's folders are for their owner alone.
        _publish(recipe, temporary, target, overwrite)
    except OSError as error:
        raise OutputError(f"cannot write prepared data to {target}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed preparations left; a live one writes to its files all the time."""
    for path in folder.glob(f"{TEMPORARY}*"):
        try:
            last = max(entry.stat().st_mtime for entry in (path, *path.iterdir()))
        except FileNotFoundError:  # Another process is at it, too.
            continue
        if time.time() - last > ABANDONED:
            shutil.rmtree(path, ignore_errors=True)


def _publish(recipe: Recipe, temporary: Path, target: Path, overwrite: bool) -> None:
    """Put a whole folder in its place; where another process was first with the same, keep what it has written."""
    if not overwrite and (target / MANIFEST).is_file():
        if not recipe.describes(Prepared.open(target).manifest):
            raise OutputError(f"{target} holds other prepared data by now: choose another folder")
        return
    try:
        temporary.rename(target)  # Onto nothing, or an empty folder.
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not (overwrite or (target / MANIFEST).is_file()):
            raise
        if overwrite:
            _discard(target)
        _publish(recipe, temporary, target, overwrite)


def _discard(target: Path) -> None:
    """Take a folder out of the way in one step, so that nobody meets it half deleted."""
    aside = tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=target.parent, ignore_cleanup_errors=True)
    with aside, suppress(FileNotFoundError):  # Another process took it away.
        target.rename(Path(aside.name) / target.name)


def _fill(recipe: Recipe, folder: Path, workers: int | None, advance: Advance) -> None:
    router = _Router(recipe)
    dtype = "<u2" if len(recipe.tokenizer) <= 2**16 else "<u4"
    with ExitStack() as stack:
        writers = {split: stack.enter_context(SplitWriter(folder, split, dtype)) for split in router.splits}
        for (split, text), ids in tokenize(router.documents(), encoder(recipe.tokenizer), workers):
            writers[split].add(ids, eos=recipe.eos, size=len(text.encode()))
            advance(1)
        router.check_complete()
        records = {split: writer.finish() for split, writer in writers.items()}
    manifest = Manifest(
        source=recipe.source,
        tokenizer=recipe.tokenizer_digest,
        vocabulary=len(recipe.tokenizer),
        dtype=dtype,
        options=recipe.options,
        documents_read=router.read,
        documents_empty=router.empty,
        documents_skipped=router.skipped,
        splits=records,
    )
    _check_balance(manifest)
    write_manifest(folder, manifest)


class _Router:
    """Sends each document to its split, and counts what becomes of it."""

    def __init__(self, recipe: Recipe) -> None:
        self.sources, self.seed = recipe.sources, recipe.options["seed"]
        limits = {TRAIN: recipe.options["max_train_samples"], VALIDATION: recipe.options["max_eval_samples"]}
        wanted = {
            TRAIN: self.sources.train is not None,
            VALIDATION: self.sources.validation is not None or self.sources.held_out_percentage > 0,
        }
        self.splits = [split for split, yes in wanted.items() if yes]
        self.limits = {split: limits[split] for split in self.splits}
        self.read = self.empty = self.skipped = 0
        self.used = dict.fromkeys(self.splits, 0)

    def documents(self) -> Iterator[Document]:
        """The documents that are used, each with its split."""
        for split, source in ((TRAIN, self.sources.train), (VALIDATION, self.sources.validation)):
            number = 0
            for text in source.documents() if source else ():
                if all(self._full(target) for target in self._targets(split)):
                    break
                self.read += 1
                if text is None or not text.strip():
                    self.empty += 1
                    continue
                yield from self._routed(self._split_of(split, number), text)
                number += 1

    def check_complete(self) -> None:
        """Make sure that no split is left without text."""
        if not sum(self.used.values()):
            raise DataError(f"there is no text in {self._names()}: all {self.read} documents are empty")
        for split, used in self.used.items():
            if not used:
                raise DataError(
                    f"none of the {sum(self.used.values())} documents in {self._names()} went to {split}: give more "
                    "documents (--sample-by says what one is in a .txt file), a --validation-file, or another "
                    "--validation-split-percentage (0 for no validation)"
                )

    def _split_of(self, split: str, number: int) -> str:
        held_out = is_held_out(number, seed=self.seed, percentage=self.sources.held_out_percentage)
        return VALIDATION if split == TRAIN and held_out else split

    def _routed(self, split: str, text: str) -> Iterator[Document]:
        if self._full(split):
            self.skipped += 1
            return
        self.used[split] += 1
        yield split, text

    def _full(self, split: str) -> bool:
        limit = self.limits[split]
        return limit is not None and self.used[split] >= limit

    def _targets(self, split: str) -> list[str]:
        """The splits that a source's documents may go to."""
        return self.splits if split == TRAIN and self.sources.held_out_percentage else [split]

    def _names(self) -> str:
        return " and ".join(source.name for source in (self.sources.train, self.sources.validation) if source)


def _check_balance(manifest: Manifest) -> None:
    """Stop if a document got lost between reading and writing: a fault of the program, not of the input."""
    used = sum(record.documents for record in manifest.splits.values())
    if manifest.documents_read != manifest.documents_empty + manifest.documents_skipped + used:
        raise RuntimeError(f"the ledger does not balance: {manifest}")
