"""Text to token ids at the tokenizer's own speed: slices of documents, in threads, in order.

The tokenizers library releases the interpreter's lock, so threads tokenize side by side without a fork,
and their number changes nothing but the time. From here on ids are flat arrays: a Python object for each
token would cost more than making it.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from clm_core.data.texts import Text, size_of
from clm_core.errors import ModelError
from clm_core.models.slow_tokenizers import NO_TEXT, digest_content, slow_encoder
from clm_core.models.templates import template_of, without_space_before
from clm_core.models.vocabulary import count_ids

SLICE_DOCUMENTS, SLICE_CHARACTERS = 1000, 2**18
"""A slice ends at whichever comes first, so that its memory is bounded for short and for long documents."""


class Document(NamedTuple):
    """A document on its way to the tokenizer."""

    origin: str
    """The split that its source is for."""
    destination: str
    """The split that it goes to, or why it goes to none."""
    text: Text | None
    """None where it is not to be tokenized."""


@dataclass(frozen=True)
class Tokens:
    """The ids of some documents, uint32 of shape (tokens,), and how many each has, int64 of shape (documents,)."""

    ids: npt.NDArray[np.uint32]
    lengths: npt.NDArray[np.int64]
    counts: npt.NDArray[np.bool_] | None = None
    """Which tokens count, of shape (tokens,); None if all do."""

    def of(self, chosen: npt.NDArray[np.bool_]) -> "Tokens":
        """The tokens of the documents for which a mask of shape (documents,) is true."""
        if chosen.all():
            return self
        tokens = np.repeat(chosen, self.lengths)
        counts = None if self.counts is None else self.counts[tokens]
        return Tokens(self.ids[tokens], self.lengths[chosen], counts)


Encode = Callable[[list[Any]], Tokens]
"""From documents, which are all of one kind of `Text`."""

Part = Literal["whole", "start", "rest"]
"""What is encoded of a document: all of it, or the part at its start, or one that follows."""

MODEL = ',"model":'
"""Where the last part of a tokenizer's JSON begins; within a string its quotes would be escaped."""

PREFIX_AND_SUFFIX = '"continuing_subword_prefix":"","end_of_word_suffix":"</w>"'
SUFFIX = PREFIX_AND_SUFFIX.replace(':"",', ":null,")

OF_WORDS = ("Unigram", "WordLevel", "WordPiece")
"""The kinds of models that can make a special token of a text by looking it up; BPE has to merge it."""

HOW_FOUND = ("single_word", "lstrip", "rstrip", "normalized")
"""What an added token's entry says of how it is looked for in a text."""

NOTHING = Tokens(np.zeros(0, np.uint32), np.zeros(0, np.int64))


@dataclass(frozen=True)
class Slice:
    """Some documents in their order, tokenized; those without a text have a size of 0, and no tokens."""

    origins: list[str]
    destinations: list[str]
    sizes: npt.NDArray[np.int64]
    """In bytes of UTF-8, of shape (documents,)."""
    tokens: Tokens
    counted: npt.NDArray[np.int64] | None = None
    """Of these, the bytes of what counts; None if all does."""


def encoder(tokenizer: Any, *, split_special_tokens: bool = True, part: Part = "whole") -> Encode:
    """How a tokenizer encodes documents: with its own template, and special tokens in the text as plain text.

    Without `split_special_tokens`, as it does by itself: a special token in the text is one. A `part` of a document
    has no template.
    """
    split = split_special_tokens or tokenizer.split_special_tokens
    if not tokenizer.is_fast:
        encode = slow_encoder(tokenizer) if split else lambda text: tokenizer(text, verbose=False)["input_ids"]
        return lambda texts: flat([encode(text) for text in texts])
    backend = fast_backend(tokenizer, split_special_tokens=split, part=part)

    def encode_batch(texts: list[str]) -> Tokens:
        with explained():
            return _ids(backend.encode_batch_fast(texts))

    return encode_batch


def fast_backend(tokenizer: Any, *, split_special_tokens: bool, part: Part) -> Any:
    """A `tokenizers.Tokenizer` of its own that encodes documents, or a part of each, as `bare_json` says."""
    state = bare_json(tokenizer, split_special_tokens=split_special_tokens, part=part)
    backend = type(tokenizer.backend_tokenizer).from_str(state)
    backend.encode_special_tokens = split_special_tokens  # A document that quotes "<|endoftext|>" does not end there.
    return backend


@contextmanager
def explained() -> Iterator[None]:
    """Explain that a tokenizer fails on a text."""
    try:
        yield
    except Exception as error:
        if type(error) is not Exception:  # The library has no specific class.
            raise
        raise ModelError(f"the tokenizer fails on a text: {error}") from None


def bare_json(tokenizer: Any, *, split_special_tokens: bool, part: Part = "whole") -> str:
    """The JSON of the `tokenizers.Tokenizer` behind a fast tokenizer, that neither pads nor cuts off.

    With `split_special_tokens`, special tokens that are words of its model too, as of Unigram's, are out of it. For a
    part of a document, there is no template, and for what follows the start no space that is put before a text either.
    """
    state: str = tokenizer.backend_tokenizer.to_str()
    head, start = _head(state)
    words = _special_words(tokenizer, head, state[start : start + 100]) if split_special_tokens else set()
    changes: dict[str, Any] = {"padding": None, "truncation": None}
    if part != "whole":
        changes["post_processor"] = None
    if part == "rest":
        changes |= {name: without_space_before(head[name]) for name in ("normalizer", "pre_tokenizer")}
    if all(head[name] == value for name, value in changes.items()) and not words:
        return state  # Not a copy: the vocabulary makes it megabytes long.
    head |= changes
    if not words:
        return json.dumps(head)[:-1] + state[start:]
    model = json.loads(state[start + len(MODEL) : -1])
    entries = model["vocab"]
    if isinstance(entries, dict):
        model["vocab"] = {_beyond_texts(entry, words): token for entry, token in entries.items()}
    else:
        model["vocab"] = [(_beyond_texts(entry, words), score) for entry, score in entries]
    for added in head["added_tokens"]:
        added["content"] = _beyond_texts(added["content"], words)
    return json.dumps({**head, "model": model})


def flat(ids: list[list[int]]) -> Tokens:
    """The tokens of some documents."""
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    return Tokens(np.fromiter(chain.from_iterable(ids), np.uint32, int(lengths.sum())), lengths)


def digest_tokenizer(tokenizer: Any) -> str:
    """SHA-256 of what a tokenizer does with text: the same in every version of transformers that loads it alike."""
    if tokenizer.is_fast:
        state = tokenizer.backend_tokenizer.to_str()
        head, start = _head(state)
        # The versions write a missing prefix in two ways if there is a suffix.
        vocabulary = state[start + len(MODEL) :].replace(PREFIX_AND_SUFFIX, SUFFIX, 1)
        content = [list(map(_entry, head["added_tokens"])), head["normalizer"], head["pre_tokenizer"]]
        if words := _special_words(tokenizer, head, state[start : start + 100]):
            content.append(sorted(words))  # An earlier clm took them for special tokens in a text.
    else:
        vocabulary, content = "", digest_content(tokenizer)
    # The versions write a template that adds nothing in different ways, so what it adds is used instead.
    content += [template_of(tokenizer).around(_letter(tokenizer)), tokenizer.eos_token_id]
    if count_ids(tokenizer) != len(tokenizer.get_vocab()):
        content.append(count_ids(tokenizer))  # Data prepared before ids were checked may have lost some.
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    digest.update(vocabulary.encode())
    return digest.hexdigest()


def tokenize(documents: Iterable[Document], encode: Encode, threads: int) -> Iterator[Slice]:
    """The documents in order, in slices, whatever the number of threads; a few slices are in memory at a time."""
    slices = _slices(documents)
    with _threads(threads) as pool:
        pending = deque(pool.submit(_slice, batch, encode) for batch in islice(slices, threads + 1))
        while pending:
            done = pending.popleft().result()
            pending.extend(pool.submit(_slice, batch, encode) for batch in islice(slices, 1))
            yield done


def _special_words(tokenizer: Any, head: dict[str, Any], model: str) -> set[str]:
    """The special tokens that the model of a tokenizer makes of a text, but for single characters, which are text."""
    if not any(f'"type":"{kind}"' in model for kind in OF_WORDS):
        return set()
    backend = tokenizer.backend_tokenizer
    before, backend.encode_special_tokens = backend.encode_special_tokens, True
    special = [token for token in head["added_tokens"] if token["special"] and len(token["content"]) > 1]
    try:
        found = {token["content"] for token in special if token["id"] in _alone(backend, token["content"])}
        # The model's own, which nothing else need name, and without which it takes no unknown word.
        return found - {tokenizer.unk_token, getattr(backend.model, "unk_token", None)}
    finally:
        backend.encode_special_tokens = before


def _alone(backend: Any, text: str) -> list[int]:
    try:
        ids: list[int] = backend.encode(text, add_special_tokens=False).ids
    except Exception:  # Of the library, for what is not in a vocabulary without an unknown token.
        return []
    return ids


def _beyond_texts(entry: str, words: set[str]) -> str:
    return entry + NO_TEXT if entry in words else entry


def _entry(added: dict[str, Any]) -> dict[str, Any]:
    """An added token. The versions differ in how special ones are found in a text, where nobody looks for them."""
    return {**added, **dict.fromkeys(HOW_FOUND, False)} if added["special"] else added


def _letter(tokenizer: Any) -> list[int]:
    """The ids of the letter a, which have always been in the digest; none if this tokenizer rejects it."""
    try:
        ids = tokenizer("a", add_special_tokens=False, padding=False, truncation=False)["input_ids"]
    except Exception:  # Of the library, for a letter that is not in a vocabulary without an unknown token.
        return []
    return [token for token in ids if token != tokenizer.eos_token_id]


def _slice(batch: list[Document], encode: Encode) -> Slice:
    has_text = np.array([document.text is not None for document in batch])
    texts = [document.text for document in batch if document.text is not None]
    tokens = encode(texts) if texts else NOTHING
    lengths, sizes, counted = np.zeros((3, len(batch)), np.int64)
    lengths[has_text] = tokens.lengths
    sizes[has_text] = np.fromiter(map(size_of, texts), np.int64, len(texts))
    if tokens.counts is not None:
        counted[has_text] = [size_of(text.counted) for text in texts if not isinstance(text, str)]
    origins, destinations = [document.origin for document in batch], [document.destination for document in batch]
    found = Tokens(tokens.ids, lengths, tokens.counts)
    return Slice(origins, destinations, sizes, found, None if tokens.counts is None else counted)


def _head(state: str) -> tuple[dict[str, Any], int]:
    """What the JSON of a tokenizer says besides its model, which is large; and where that begins."""
    start = state.index(MODEL)
    return json.loads(state[:start] + "}"), start


def _ids(encodings: list[Any]) -> Tokens:
    """The ids of encodings, whose lists are made for one document at a time: they are many times as large."""
    lengths = np.fromiter(map(len, encodings), np.int64, len(encodings))
    ids = chain.from_iterable(encoding.ids for encoding in encodings)
    return Tokens(np.fromiter(ids, np.uint32, int(lengths.sum())), lengths)


def _slices(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text or "")
        if len(batch) == SLICE_DOCUMENTS or characters >= SLICE_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that tokenize; the library is kept from starting its own under them, and its setting put back."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    pool, is_done = ThreadPoolExecutor(max_workers=count, thread_name_prefix="tokenize"), False
    try:
        yield pool
        is_done = True
    finally:
        pool.shutdown(wait=is_done, cancel_futures=True)  # An error, or Ctrl-C, does not wait for their slices.
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
