"""The built-in sample: original questions and answers in ELI5's schema, and a tokenizer trained on them."""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from clm_core.sample.phrases import answer, pick, selftext, title
from clm_core.sample.topics import Topic, topics

ROWS = 700
SEED = 2024
PROMPT = "Good question!"
"""Starts many answers, so that a model trained on them can continue it."""
TOKENIZER = Path(__file__).parent / "tokenizer"
"""The folder of the shipped tokenizer; `AutoTokenizer.from_pretrained` reads it without a network."""


def rows(count: int = ROWS) -> Iterator[dict[str, Any]]:
    """The same rows on every call, in every version of Python; fewer rows are the first ones of more."""
    random, known = Random(SEED), topics()
    for index in range(count):
        yield _row(random, f"s{index:05d}", pick(random, known))


def _row(random: Random, name: str, topic: Topic) -> dict[str, Any]:
    return {
        "q_id": name,
        "title": title(random, topic),
        "selftext": selftext(random),
        "category": topic.category,
        "subreddit": "explainlikeimfive",
        "answers": _answers(random, name, topic),
        "title_urls": [],
        "selftext_urls": [],
    }


def _answers(random: Random, name: str, topic: Topic) -> dict[str, list[Any]]:
    count = pick(random, (1, 1, 1, 1, 1, 1, 1, 2, 2, 3))
    return {
        "a_id": [f"{name}a{index}" for index in range(count)],
        "text": [answer(random, topic) for _ in range(count)],
        "score": sorted((2 + int(60 * random.random()) for _ in range(count)), reverse=True),
        "text_urls": [[] for _ in range(count)],
    }
