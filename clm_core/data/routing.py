"""Sends each document to its split, and counts the documents that go to none, and why."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from clm_core.counts import with_noun
from clm_core.data.manifest import TRAIN, VALIDATION
from clm_core.data.sources import Source, Sources, is_held_out
from clm_core.data.texts import Text
from clm_core.data.tokenization import Document, Slice
from clm_core.errors import DataError
from clm_core.shards import Shard

EMPTY, SKIPPED, ELSEWHERE = "empty", "skipped", "elsewhere"
"""Why a document goes to no split: it has no text, is beyond a limit, or belongs to another shard."""

UNREAD, BROKEN = "unread", "broken"
"""Of a document that was read ahead, after the one that turned out to be the last; and of one that cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most documents a split takes, and the number of tokens that ends it; None for no limit."""

    documents: dict[str, int | None]
    tokens: dict[str, int | None]


@dataclass
class Tally:
    """What each split has taken."""

    limits: Limits
    documents: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)

    def add(self, split: str, tokens: int = 0) -> None:
        """A document goes to a split."""
        self.documents[split] += 1
        self.tokens[split] += tokens

    def full(self, split: str) -> bool:
        """Whether a split takes no more."""
        documents, tokens = self.limits.documents.get(split), self.limits.tokens.get(split)
        enough = documents is not None and self.documents[split] >= documents
        return enough or (tokens is not None and self.tokens[split] >= tokens)


def check_splits(documents: Mapping[str, int], names: str, *, read: int) -> None:
    """Make sure that each split has documents, of those that were read from the sources of these names.

    Raises:
        DataError: one has none.
    """
    if not (total := sum(documents.values())):
        what = "the only document is" if read == 1 else f"all {read:,} documents are"
        raise DataError(f"there is no text in {names}: {what} empty")
    for split, count in documents.items():
        if not count:
            raise DataError(
                f"of {with_noun(total, 'document')} in {names}, none went to {split}: give more "
                "documents (--sample-by says what one is in a .txt file), a --validation-file, or another "
                "--validation-split-percentage (0 for no validation)"
            )


class Router:
    """Sends each document to its split, and counts what becomes of it.

    A document is routed before it is tokenized, and its destination is final after that: only then is it known
    whether the documents before it have as many tokens as requested. So there are two tallies. `_routed` has been read,
    and is ahead of `_taken` by no more than the slices that the threads have at work; `_taken` alone is what counts.
    """

    def __init__(self, sources: Sources, *, seed: int, limits: Limits, shard: Shard, keeps_blank: bool = False) -> None:
        self.sources, self.seed, self.shard = sources, seed, shard
        self.keeps_blank = keeps_blank
        """Whether a document without text is one like any other, as in the guide, whose batches count it."""
        wanted = {
            TRAIN: sources.train is not None,
            VALIDATION: sources.validation is not None or sources.held_out_percentage > 0,
        }
        self.splits = [split for split, yes in wanted.items() if yes]
        self.counts: Counter[str] = Counter()
        """How many documents went to each split, or to none and why."""
        self._routed, self._taken = Tally(limits), Tally(limits)
        self._failures: dict[str, Exception] = {}
        self._by_tokens = any(limit is not None for limit in limits.tokens.values())

    def documents(self) -> Iterator[Document]:
        """The documents, each with its destination; those that are not tokenized come without their text."""
        for origin, source in ((TRAIN, self.sources.train), (VALIDATION, self.sources.validation)):
            try:
                yield from self._documents(origin, source) if source else ()
            except Exception as error:
                # Raised when it is settled, unless it was met in reading ahead.
                self._failures[origin] = error
                yield Document(origin, BROKEN, None)

    def settle(self, part: Slice) -> list[str]:
        """Where the documents of a slice go for good, in their order; count them.

        Raises what the reading of a document raised.
        """
        destinations = part.destinations
        if self._by_tokens or BROKEN in destinations:
            triples = zip(part.origins, part.destinations, part.tokens.lengths.tolist(), strict=True)
            destinations = [self._settle(*triple) for triple in triples]
        self.counts.update(destinations)
        return destinations

    def check_complete(self) -> None:
        """Make sure that no split is left without text.

        Raises:
            DataError: one is.
        """
        # A shard may have none of the few documents of a split.
        used = self._routed.documents if self.shard.count > 1 else self.counts
        found = {split: used[split] for split in self.splits}
        check_splits(found, self._names(), read=sum(self.counts.values()))

    def _documents(self, origin: str, source: Source) -> Iterator[Document]:
        parts = {None: source.documents} if source.files is None else source.files
        for file, documents in parts.items():
            number = 0
            for text in documents():
                if self._ended(origin, self._routed) or self._ended(origin, self._taken):
                    return
                if not self.keeps_blank and (text is None or (isinstance(text, str) and not text.strip())):
                    yield Document(origin, EMPTY, None)
                    continue
                yield self._route(origin, self._split_of(origin, number, file), text or "")
                number += 1

    def _split_of(self, origin: str, number: int, file: int | None) -> str:
        percentage = self.sources.held_out_percentage
        is_other = origin == TRAIN and is_held_out(number, seed=self.seed, percentage=percentage, file=file)
        return VALIDATION if is_other else origin

    def _route(self, origin: str, split: str, text: Text) -> Document:
        if self._routed.full(split) or self._taken.full(split):
            return Document(origin, SKIPPED, None)
        number = self._routed.documents[split]
        self._routed.add(split)
        return Document(origin, split, text) if self.shard.has(number) else Document(origin, ELSEWHERE, None)

    def _settle(self, origin: str, destination: str, tokens: int) -> str:
        if self._ended(origin, self._taken):
            return UNREAD
        if destination == BROKEN:
            raise self._failures[origin]
        if destination not in self.splits:
            return destination
        if self._taken.full(destination):
            return SKIPPED
        self._taken.add(destination, tokens)
        return destination

    def _ended(self, origin: str, tally: Tally) -> bool:
        """Whether nothing more of a source is needed."""
        # A stream may be too long to read to its end; documents are held out only from those read for training.
        both = origin == TRAIN and self.sources.held_out_percentage and not self.sources.streaming
        return all(tally.full(split) for split in (self.splits if both else [origin]))

    def _names(self) -> str:
        return " and ".join(source.name for source in (self.sources.train, self.sources.validation) if source)
