"""The tokenizing engine: tokenizers, or fastokens where it is installed and gives the same tokens.

fastokens is adopted only after it agreed with the reference on texts that tokenizers are known to differ on and on
the first documents, and is checked on one document of each slice from then on; of a long document, on its beginning.
If it differs once, the reference tokenizes everything again, so the output never depends on the engine.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from clm_core.data.marking import conversations_encoder, parts_encoder
from clm_core.data.tokenization import Encode, Part, Tokens, bare_json, encoder
from clm_core.models.hard_texts import HARD_TEXTS

FIRST_DOCUMENTS = 100
"""How many are compared before fastokens is trusted."""

CHECKED_CHARACTERS = 4000
"""How much of a document is compared, from its start: the reference is slow, and most documents are shorter."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What documents are, as far as it matters to an engine."""

    split_special_tokens: bool = True
    texts: Literal["whole", "prompted", "rendered"] = "whole"
    """Strings, prompts with completions, or conversations."""
    masks: bool = False
    """Whether some of them does not count."""


WHOLE = Kind()


class EngineDiffersError(Exception):
    """The fast engine failed, or its tokens differ from the reference's."""


@dataclass(frozen=True)
class Engine:
    """What tokenizes, its name in the manifest, and the number of threads it is called from."""

    name: str
    encode: Encode
    threads: int


def reference_engine(tokenizer: Any, workers: int | None = None, kind: Kind = WHOLE) -> Engine:
    """The tokenizers library, or the tokenizer's own Python where it has no fast implementation."""
    threads = workers or os.cpu_count() or 1
    if kind.texts == "rendered":
        return Engine(_version("tokenizers"), conversations_encoder(tokenizer, masks=kind.masks), threads)
    return Engine(_version("tokenizers"), _encode(tokenizer, kind, partial(_reference, tokenizer, kind)), threads)


def choose_engine(tokenizer: Any, workers: int | None, say: Callable[[str], None], kind: Kind = WHOLE) -> Engine:
    """The fastest engine that agrees; the reference if a number of threads is given, since fastokens starts its own.

    Conversations are for the reference, which says where in a text a token is.
    """
    reference = reference_engine(tokenizer, workers, kind)
    if workers or not tokenizer.is_fast or kind.texts == "rendered" or find_spec("fastokens") is None:
        return reference
    try:
        encode = _encode(tokenizer, kind, partial(_checked, tokenizer, kind))
    except EngineDiffersError as error:
        say(f"fastokens is not used for this tokenizer: {error}")
        return reference
    return Engine(_version("fastokens"), encode, threads=1)  # It starts its own threads.


def _encode(tokenizer: Any, kind: Kind, make: Callable[[Part], Encode]) -> Encode:
    """What encodes documents, of what `make` makes for each part of them."""
    if kind.texts == "whole":
        return make("whole")
    return parts_encoder(tokenizer, make("start"), make("rest"), masks=kind.masks)


def _reference(tokenizer: Any, kind: Kind, part: Part) -> Encode:
    return encoder(tokenizer, split_special_tokens=kind.split_special_tokens, part=part)


def _checked(tokenizer: Any, kind: Kind, part: Part) -> Encode:
    fast = _Checked(_fastokens(tokenizer, kind.split_special_tokens, part), _reference(tokenizer, kind, part))
    fast.compare(list(HARD_TEXTS), fast.encode(list(HARD_TEXTS)))
    return fast


def _fastokens(tokenizer: Any, split_special_tokens: bool, part: Part = "whole") -> Encode:
    try:
        import fastokens

        state = bare_json(tokenizer, split_special_tokens=split_special_tokens, part=part)
        engine = fastokens.Tokenizer.from_json_str(state)
    except Exception as error:  # Whatever it does not support in a tokenizer or a system.
        raise EngineDiffersError(f"fastokens does not support it ({error})") from None

    def encode(texts: list[str]) -> Tokens:
        try:
            ids, offsets = engine.encode_batch_flat(
                texts, add_special_tokens=True, split_special_tokens=split_special_tokens
            )
        except Exception as error:  # A failure of an optional engine must not fail the run.
            raise EngineDiffersError(f"it failed ({error})") from None
        return Tokens(np.frombuffer(ids, "<u4"), _lengths(np.frombuffer(offsets, "<u8")))

    return encode


class _Checked:
    """An engine that is compared with the reference on the first documents, then on one of each slice."""

    def __init__(self, encode: Encode, reference: Encode) -> None:
        self.encode, self.reference = encode, reference
        self.unchecked, self.slices = FIRST_DOCUMENTS, 0

    def __call__(self, texts: list[str]) -> Tokens:
        tokens = self.encode(texts)
        if self.unchecked:
            self._check(texts, tokens, np.arange(len(texts)) < self.unchecked)
            self.unchecked = max(0, self.unchecked - len(texts))
        else:
            self._check(texts, tokens, np.arange(len(texts)) == self.slices % len(texts))
        self.slices += 1
        return tokens

    def compare(self, texts: list[str], tokens: Tokens) -> None:
        """Make sure that the reference produces these tokens from these texts."""
        expected = self.reference(texts)
        if not (np.array_equal(tokens.lengths, expected.lengths) and np.array_equal(tokens.ids, expected.ids)):
            raise EngineDiffersError("its tokens differ")

    def _check(self, texts: list[str], tokens: Tokens, chosen: npt.NDArray[np.bool_]) -> None:
        short = np.array([len(text) <= CHECKED_CHARACTERS for text in texts])
        self.compare([texts[index] for index in np.flatnonzero(chosen & short)], tokens.of(chosen & short))
        # Of a long text, both engines tokenize the beginning alone, and its own tokens are not compared: engines differ
        # on characters and words, of which a beginning has as many as a short document.
        beginnings = [texts[index][:CHECKED_CHARACTERS] for index in np.flatnonzero(chosen & ~short)]
        self.compare(beginnings, self.encode(beginnings))


def _lengths(offsets: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    return (offsets[1:] - offsets[:-1]).astype(np.int64)


def _version(distribution: str) -> str:
    return f"{distribution} {metadata.version(distribution)}"
