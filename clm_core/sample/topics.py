"""The topics of the sample, read from topics.txt."""

from pathlib import Path
from typing import NamedTuple


class Topic(NamedTuple):
    """All that the sample knows about one thing; clauses of different topics are never combined."""

    category: str
    questions: tuple[str, ...]
    claims: tuple[str, ...]
    facts: tuple[str, ...]
    comparisons: tuple[str, ...]
    consequences: tuple[str, ...]
    occasions: tuple[str, ...]


def topics() -> list[Topic]:
    """Every topic, in the order of the file."""
    text = (Path(__file__).parent / "topics.txt").read_text(encoding="utf-8")
    return [_topic(part) for part in text.split("\n\n")[1:]]


def _topic(part: str) -> Topic:
    lines = part.splitlines()
    return Topic(lines[0].removeprefix("= "), *(_marked(lines, sign) for sign in "?!-~>+"))


def _marked(lines: list[str], sign: str) -> tuple[str, ...]:
    return tuple(line[2:] for line in lines if line[0] == sign)
