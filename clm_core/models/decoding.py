"""Token ids to text, with every space that the model generated."""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Decode = Callable[[Sequence[int]], str]

BROKEN = "\ufffd"
"""Stands for bytes that are not a character."""

BYTES = 4
"""The most bytes a character has in UTF-8."""


def continuation(tokenizer: Any, before: Sequence[int], new: Sequence[int], *, special: bool = False) -> str:
    """The text that `new` tokens add to those `before` them; special tokens are shown only if `special`.

    With many tokenizers, a text that is decoded alone loses its first space.
    """
    decode, ids = _decoder(tokenizer, special), list(new)
    whole = _added(decode, before, ids)
    if not whole.endswith(BROKEN) or not _may_give_up_runs(tokenizer):
        return whole
    for cut in range(1, min(BYTES, len(ids)) + 1):
        text = _added(decode, before, ids[:-cut])
        if not text.endswith(BROKEN):
            return text + BROKEN
    return whole


def _added(decode: Decode, before: Sequence[int], new: list[int]) -> str:
    for start in _beginnings(before):
        head, whole = decode(start), decode([*start, *new])
        if whole.startswith(head):  # Not if `new` changes how the tokens before it are decoded.
            return whole[len(head) :]
    return decode(new)


def _beginnings(before: Sequence[int]) -> Iterator[list[int]]:
    """All of it, then less and less: after any text, new tokens are decoded as within a text."""
    yield list(before)
    left_out = 1
    while left_out < len(before):
        yield list(before[:-left_out])
        left_out *= 2


def _decoder(tokenizer: Any, special: bool) -> Decode:
    bare = _without_cleanup(tokenizer) if tokenizer.is_fast else tokenizer
    options = {"skip_special_tokens": not special, "clean_up_tokenization_spaces": False}
    return lambda ids: bare.decode(list(ids), **options)


def _may_give_up_runs(tokenizer: Any) -> bool:
    """Whether a run of bytes that ends within a character may be decoded to none of its characters.

    `ByteFallback` does so. A slow tokenizer is not known.
    """
    return not tokenizer.is_fast or bool(_steps(_state(tokenizer), "ByteFallback"))


def _without_cleanup(tokenizer: Any) -> Any:
    """The same tokenizer with a decoder that keeps spaces before punctuation, which WordPiece's own does not."""
    state = _state(tokenizer)
    steps = [step for step in _steps(state, "WordPiece") if step["cleanup"]]
    if not steps:
        return tokenizer
    for step in steps:
        step["cleanup"] = False
    bare = copy.deepcopy(tokenizer)
    changed = copy.deepcopy(tokenizer.backend_tokenizer.decoder)
    changed.__setstate__(json.dumps(state).encode())
    bare.backend_tokenizer.decoder = changed
    return bare


def _state(tokenizer: Any) -> dict[str, Any]:
    """What the decoder of a fast tokenizer is, as tokenizer.json has it."""
    decoder = tokenizer.backend_tokenizer.decoder
    state: dict[str, Any] = json.loads(decoder.__getstate__()) if decoder else {}
    return state


def _steps(state: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [step for step in state.get("decoders", [state]) if step.get("type") == kind]
