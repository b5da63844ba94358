"""Text to token ids, at the speed of the tokenizer itself: slices of documents, in threads, in order.

The tokenizers library releases the interpreter's lock, so threads tokenize side by side without a fork,
and their number changes nothing but the time.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any

Encode = Callable[[list[str]], list[list[int]]]
"""Takes texts, returns the ids of each."""

Document = tuple[str, str]
"""The split that a document goes to, and its text."""

Tokenized = tuple[Document, list[int]]

SLICE_DOCUMENTS, SLICE_CHARACTERS = 1000, 2**20
"""A slice ends at whichever comes first, so that its memory is bounded for short and for long documents."""


def encoder(tokenizer: Any) -> Encode:
    """How a tokenizer encodes documents: with its own template, and special tokens in the text as plain text."""
    if not tokenizer.is_fast:
        return lambda texts: tokenizer(texts, split_special_tokens=True, verbose=False)["input_ids"]
    backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = True  # A document that quotes "<|endoftext|>" does not end there.
    return lambda texts: [encoding.ids for encoding in backend.encode_batch_fast(texts)]


def tokenize(documents: Iterable[Document], encode: Encode, workers: int | None = None) -> Iterator[Tokenized]:
    """Each document with its ids, in order, whatever the number of threads; a few slices are in memory at a time."""
    count = workers or os.cpu_count() or 1
    slices = _slices(documents)

    def work(batch: list[Document]) -> list[Tokenized]:
        return list(zip(batch, encode([text for _, text in batch]), strict=True))

    with ThreadPoolExecutor(max_workers=count, thread_name_prefix="tokenize") as pool, _one_thread_a_call():
        pending = deque(pool.submit(work, batch) for batch in islice(slices, 2 * count))
        while pending:
            yield from pending.popleft().result()
            pending.extend(pool.submit(work, batch) for batch in islice(slices, 1))


def _slices(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document[1])
        if len(batch) == SLICE_DOCUMENTS or characters >= SLICE_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


@contextmanager
def _one_thread_a_call() -> Iterator[None]:
    """Keep the library from starting threads of its own under ours, and put its setting back."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
