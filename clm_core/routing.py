"""Which split each document goes to, and what becomes of those that go to none: the documents' side of the ledger."""

from collections.abc import Iterator

from clm_core.data import Sources, is_held_out
from clm_core.errors import DataError
from clm_core.prepared import TRAIN, VALIDATION
from clm_core.tokenization import Document


class Router:
    """Sends each document to its split, and counts what becomes of it."""

    def __init__(self, sources: Sources, *, seed: int, limits: dict[str, int | None]) -> None:
        self.sources, self.seed, self.limits = sources, seed, limits
        wanted = {
            TRAIN: sources.train is not None,
            VALIDATION: sources.validation is not None or sources.held_out_percentage > 0,
        }
        self.splits = [split for split, yes in wanted.items() if yes]
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
        """Make sure that no split is left without text.

        Raises:
            DataError: one is.
        """
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
