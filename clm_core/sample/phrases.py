"""Sentence frames of the sample: how a topic becomes a title, a question and an answer.

Draws use `Random.random()` alone, for its stream is the only one that Python keeps the same in every version.
"""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

from clm_core.sample.topics import Topic

TITLES = ("{}", "{}", "ELI5: {}")
SELFTEXTS = (
    *[""] * 6,
    "My child asked me this, and I did not know what to say.",
    "I have asked myself this for a long time.",
    "I looked it up, but the page was full of hard words.",
    "Please keep it simple.",
)
OPENINGS = (
    "{}.",
    "Good question! {}.",
    "The short answer is that {}.",
    "The simple answer is that {}.",
    "In a few words, {}.",
    "Put simply, {}.",
    "The main idea is that {}.",
)
FIRST = ("{}.", "First of all, {}.", "To begin with, {}.", "It helps to know that {}.", "You see, {}.")
SECOND = ("{}.", "{}.", "Also, {}.", "In fact, {}.", "It is also true that {}.")
THIRD = ("{}.", "{}.", "On top of that, {}.", "You should also know that {}.")
COMPARISONS = ("It is a bit like {}.", "Think of {}.", "You can compare it to {}.", "A good picture for it is {}.")
CONSEQUENCES = ("That is why {}.", "This is why {}.", "This explains why {}.")
FURTHER = ("It is also why {}.", "It also explains why {}.")
CLOSINGS = (
    "The next time you {}, you can think of that.",
    "So the next time you {}, you will know what is going on.",
    "Try to remember this when you {}.",
    "Now you have something to tell your friends when you {}.",
)
SHAPES = ((2, 1, 1, 0), (2, 0, 1, 1), (2, 0, 2, 0), (2, 1, 1, 1), (3, 0, 1, 0), (3, 1, 1, 0), (3, 0, 1, 1))
"""How many facts, comparisons, consequences and closings an answer has."""
Item = TypeVar("Item")


def title(random: Random, topic: Topic) -> str:
    """One of the topic's questions."""
    return pick(random, TITLES).format(pick(random, topic.questions))


def selftext(random: Random) -> str:
    """What the asker adds, which is mostly nothing."""
    return pick(random, SELFTEXTS)


def answer(random: Random, topic: Topic) -> str:
    """A short answer, facts that explain it, and what else the drawn shape holds: between 40 and 130 words."""
    facts, comparisons, consequences, closings = pick(random, SHAPES)
    sentences = [
        *_say(random, [OPENINGS], topic.claims, 1),
        *_say(random, [FIRST, SECOND, THIRD], topic.facts, facts),
        *_say(random, [COMPARISONS], topic.comparisons, comparisons),
        *_say(random, [CONSEQUENCES, FURTHER], topic.consequences, consequences),
        *_say(random, [CLOSINGS], topic.occasions, closings),
    ]
    return " ".join(sentences)


def pick(random: Random, items: Sequence[Item]) -> Item:
    """One of the items, each as likely as the others."""
    return items[int(random.random() * len(items))]


def _say(random: Random, frames: Sequence[Sequence[str]], clauses: Sequence[str], count: int) -> list[str]:
    """So many of the clauses as sentences: the first in one of the first frames, the second in one of the second."""
    drawn = _some(random, clauses, count)
    return [_sentence(pick(random, frames[index]).format(clause)) for index, clause in enumerate(drawn)]


def _some(random: Random, items: Sequence[str], count: int) -> list[str]:
    """So many of the items, in the order in which they are given."""
    drawn = sorted(range(len(items)), key=lambda _: random.random())[:count]
    return [items[index] for index in sorted(drawn)]


def _sentence(text: str) -> str:
    start = text.find("! ") + 2 if "! " in text else 0
    return text[:start] + text[start].upper() + text[start + 1 :]
