"""Encodes documents of which some does not count, and says which of their tokens do."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from clm_core.data.texts import Prompted, Rendered
from clm_core.data.tokenization import Encode, Tokens, explained, fast_backend, flat
from clm_core.errors import OptionError
from clm_core.models.slow_tokenizers import slow_encoder
from clm_core.models.templates import Template, template_of

Pairs = Callable[[list[str], list[str]], tuple[Tokens, Tokens]]
"""Encodes the prompts and the completions of as many documents, without a template."""

Numbers = npt.NDArray[np.int64]


def parts_encoder(tokenizer: Any, start: Encode, rest: Encode, *, masks: bool) -> Encode:
    """How prompts with completions are encoded: each for itself, and around both the tokenizer's template.

    `start` and `rest` encode these parts of a text, as `encoder` has them. With `masks`, the completion counts, and
    what the template puts after it.
    """
    pairs = (lambda prompts, completions: (start(prompts), rest(completions))) if tokenizer.is_fast else None
    return _Parts(pairs or _slow_pairs(tokenizer), template_of(tokenizer), masks)


def conversations_encoder(tokenizer: Any, *, masks: bool) -> Encode:
    """How conversations are encoded that a chat template has rendered, as `apply_chat_template` does; see `Rendered`.

    With `masks`, what the assistant says counts, and every token with a part of it.

    Raises:
        OptionError: the tokenizer is one in Python, which does not say where in a text a token is.
    """
    if not tokenizer.is_fast:
        raise OptionError(
            "messages_column needs a fast tokenizer, of the library tokenizers, which says where in a text a token is"
        )
    start, rest = (fast_backend(tokenizer, split_special_tokens=False, part=part) for part in ("start", "rest"))

    def encode(documents: list[Rendered]) -> Tokens:
        with explained():
            made = iter(start.encode_batch([document.pieces[0] for document in documents], add_special_tokens=False))
            later = [piece for document in documents for piece in document.pieces[1:]]
            more = iter(rest.encode_batch(later, add_special_tokens=False))
        found = [
            _of_conversation(document, [next(made), *(next(more) for _ in document.pieces[1:])])
            for document in documents
        ]
        ids = flat([ids for ids, _ in found])
        return Tokens(ids.ids, ids.lengths, np.concatenate([counts for _, counts in found]) if masks else None)

    return encode


@dataclass(frozen=True)
class _Parts:
    pairs: Pairs
    template: Template
    masks: bool

    def __call__(self, documents: list[Prompted]) -> Tokens:
        prompts, completions = self.pairs([it.prompt for it in documents], [it.completion for it in documents])
        before, after = self.template.before, self.template.after
        lengths = len(before) + prompts.lengths + completions.lengths + len(after)
        starts = np.cumsum(lengths) - lengths
        ids = np.zeros(int(lengths.sum()), np.uint32)
        counts = np.ones(len(ids), bool)
        for number, token in enumerate(before):
            ids[starts + number] = token
            counts[starts + number] = False
        places = _places(starts + len(before), prompts.lengths)
        ids[places], counts[places] = prompts.ids, False
        ids[_places(starts + len(before) + prompts.lengths, completions.lengths)] = completions.ids
        for number, token in enumerate(reversed(after), 1):
            ids[starts + lengths - number] = token
        return Tokens(ids, lengths, counts if self.masks else None)


def _places(starts: Numbers, lengths: Numbers) -> Numbers:
    """The numbers from each start on, as many as its length."""
    places: Numbers = np.arange(int(lengths.sum())) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    return places


def _slow_pairs(tokenizer: Any) -> Pairs:
    """Of a tokenizer in Python, whose rules for the start of a text are its own.

    A completion is what the tokens of both have more than those of the prompt; if they are others, it is for itself.
    """
    encode = slow_encoder(tokenizer, template=Template())

    def rest(prompt: list[int], text: Prompted) -> list[int]:
        both = encode(text.prompt + text.completion)
        return both[len(prompt) :] if both[: len(prompt)] == prompt else encode(text.completion)

    def pairs(prompts: list[str], completions: list[str]) -> tuple[Tokens, Tokens]:
        starts = [encode(prompt) for prompt in prompts]
        texts = map(Prompted, prompts, completions)
        return flat(starts), flat([rest(start, text) for start, text in zip(starts, texts, strict=True)])

    return pairs


def _of_conversation(document: Rendered, encodings: list[Any]) -> tuple[list[int], npt.NDArray[np.bool_]]:
    """The ids of a conversation, and which of them have a part of what the assistant says."""
    says = np.zeros(len(document) + 1, np.int64)
    for start, end in document.turns:
        says[start + 1 : end + 1] = 1
    before = np.cumsum(says)  # How many characters of what it says there are before each place.
    first = np.cumsum([0, *map(len, document.pieces)])
    offsets = [np.array(each.offsets, np.int64).reshape(-1, 2) + at for each, at in zip(encodings, first, strict=False)]
    places = np.concatenate(offsets)
    ids = list(chain.from_iterable(each.ids for each in encodings))
    return ids, before[places[:, 1]] > before[places[:, 0]]
