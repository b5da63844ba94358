"""What a document can be besides a string: a prompt with its completion, or a conversation."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Prompted:
    """A prompt, and the completion that follows it."""

    prompt: str
    completion: str

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)

    @property
    def counted(self) -> str:
        """What counts of it."""
        return self.completion


@dataclass(frozen=True, slots=True)
class Conversation:
    """The messages of a row, as a chat template takes them, and the place of the row."""

    messages: list[dict[str, Any]]
    place: str
    prompt: int | None = None
    """How many of them are the prompt, if the others are a completion, which is what counts."""
    tools: list[dict[str, Any]] | None = None
    """What the assistant may call, as JSON schemas."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as the text that a chat template makes of it, whose special tokens are real ones."""

    pieces: tuple[str, ...]
    """It is cut within what looks like a special token and is none, because a message says so."""
    turns: tuple[tuple[int, int], ...]
    """Where what the assistant says begins and ends, in characters of the whole text."""

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    @property
    def text(self) -> str:
        """The whole."""
        return "".join(self.pieces)

    @property
    def counted(self) -> str:
        """What counts of it."""
        return "".join(self.text[start:end] for start, end in self.turns)


Text = str | Prompted | Rendered
"""A document on its way to the tokenizer."""


def size_of(text: Text) -> int:
    """Bytes of a text in UTF-8."""
    match text:
        case str():
            return len(text) if text.isascii() else len(text.encode())
        case Prompted(prompt, completion):
            return size_of(prompt) + size_of(completion)
        case Rendered():
            return size_of(text.text)
