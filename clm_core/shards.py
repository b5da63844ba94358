"""Shards of a preparation: which documents, or which files, each one has."""

import re
from dataclasses import dataclass

PATTERN = re.compile(r"([0-9]+)/([0-9]+)")


@dataclass(frozen=True)
class Shard:
    """The `number`-th of `count` shards, from 1: of each split, every `count`-th document; or files in a row."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str | None) -> "Shard":
        """The shard written as `1/4`; the only shard of one if nothing is written.

        Raises:
            ValueError: it is written differently, or there is no such shard.
        """
        if text is None:
            return cls()
        match = PATTERN.fullmatch(text)
        number, count = map(int, match.groups()) if match else (0, 0)
        if not 1 <= number <= count:
            raise ValueError(text)
        return cls(number, count)

    def has(self, document: int) -> bool:
        """Whether the document of this number, from 0, counted within its split, is in this shard."""
        return document % self.count == self.number - 1

    def part_of(self, files: int) -> tuple[int, int]:
        """Of this many files, the first that is in this shard, and the one after its last."""
        return files * (self.number - 1) // self.count, files * self.number // self.count

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"
