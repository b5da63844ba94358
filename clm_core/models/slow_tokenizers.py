"""Tokenizers written in Python: special tokens in a text stay text."""

import copy
import hashlib
import inspect
import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from clm_core.errors import ModelError
from clm_core.models.hard_texts import HARD_TEXTS
from clm_core.models.templates import Template, template_of
from clm_core.models.vocabulary import special_tokens

NO_TEXT = "\ufdd0\ufdd1\ufdd2"
"""Noncharacters: some tokenizers look for their special tokens, and must have one that they do not find."""

DESCRIBING = ("_token", "_tokens", "_file")
"""How the names of arguments end that say nothing of how text is split; the tokens are known by their ids."""

OF_DECODING = {"clean_up_tokenization_spaces", "errors"}


def slow_encoder(tokenizer: Any, *, template: Template | None = None) -> Callable[[str], list[int]]:
    """How it encodes a text, with its template, or another.

    transformers 4.57 supports `split_special_tokens` in some methods only, and then splits other added tokens too.
    """
    special, around = special_tokens(tokenizer), template or template_of(tokenizer)
    bare, unknown = _without(tokenizer, special), tokenizer.unk_token_id

    def encode(text: str) -> list[int]:
        tokens = bare.tokenize(text)
        # A word of the text can be an entry of the vocabulary that is special.
        ids = [unknown if token in special else bare.convert_tokens_to_ids(token) for token in tokens]
        if None in ids:
            raise ModelError(f"the tokenizer has no id for {tokens[ids.index(None)]!r}, and no unknown token")
        return around.around(ids)

    return encode


def digest_content(tokenizer: Any) -> list[Any]:
    """All that decides what it does with text, in the types of JSON, the same in every version that does the same."""
    special = special_tokens(tokenizer)  # No text is made of them, and the versions add others, in other ways.
    added = [
        [index, token.content, token.lstrip, token.rstrip, token.single_word, token.normalized]
        for index, token in sorted(tokenizer.added_tokens_decoder.items())
        if token.content not in special
    ]
    words = sorted(item for item in tokenizer.get_vocab().items() if item[0] not in special)
    encode = slow_encoder(tokenizer)
    # Whatever a flag is called, and whichever version has it, it makes a difference here or nowhere that is known.
    made = [_made(encode, text) for text in HARD_TEXTS]
    return [type(tokenizer).__name__, _flags(tokenizer), _files(tokenizer), words, added, made]


def _without(tokenizer: Any, special: set[str]) -> Any:
    """The same tokenizer, to which special tokens are text like any other."""
    bare = copy.copy(tokenizer)
    none = property(lambda self: [NO_TEXT])
    bare.__class__ = type(type(tokenizer).__name__, (type(tokenizer),), {"all_special_tokens": none})
    bare._added_tokens_encoder = {
        token: index for token, index in tokenizer._added_tokens_encoder.items() if token not in special
    }
    bare.tokens_trie = type(tokenizer.tokens_trie)()
    for token in sorted(tokenizer.tokens_trie._tokens - special):
        bare.tokens_trie.add(token)
    return bare


def _made(encode: Callable[[str], list[int]], text: str) -> list[int] | None:
    with suppress(ModelError):
        return encode(text)
    return None


def _flags(tokenizer: Any) -> dict[str, str]:
    """The arguments of its class that differ from their defaults."""
    parameters = inspect.signature(type(tokenizer).__init__).parameters
    given = {name: tokenizer.init_kwargs[name] for name in parameters if name in tokenizer.init_kwargs}
    return {
        name: repr(value)
        for name, value in given.items()
        if not name.endswith(DESCRIBING) and name not in OF_DECODING and value != parameters[name].default
    }


def _files(tokenizer: Any) -> list[str]:
    """SHA-256 of the files of its vocabulary: merges, or a model of SentencePiece."""
    with tempfile.TemporaryDirectory() as folder:
        with suppress(NotImplementedError):
            tokenizer.save_vocabulary(folder, filename_prefix=None)
        return [hashlib.sha256(_plain(path)).hexdigest() for path in sorted(Path(folder).iterdir())]


def _plain(path: Path) -> bytes:
    if path.suffix != ".json":
        return path.read_bytes()
    return json.dumps(json.loads(path.read_text(encoding="utf-8")), sort_keys=True).encode()
