"""The vocabulary of a tokenizer: that it has one, how many ids it takes up, and its special tokens."""

from itertools import chain
from typing import Any

from clm_core.errors import ModelError
from clm_core.models.templates import template_of


def count_ids(tokenizer: Any) -> int:
    """One more than the largest id, the number of embeddings a model needs; more than entries, if ids are left out."""
    template = template_of(tokenizer)
    ids = chain(tokenizer.get_vocab().values(), tokenizer.added_tokens_decoder, template.before, template.after)
    return max(ids, default=-1) + 1


def special_tokens(tokenizer: Any) -> set[str]:
    """The tokens that are no text, a class's own ones too, which are special in transformers 5 alone."""
    added = tokenizer.added_tokens_decoder.values()
    own = {str(value) for name, value in tokenizer.init_kwargs.items() if name.endswith("_token") and _is_token(value)}
    return {token.content for token in added if token.special} | set(tokenizer.all_special_tokens) | own


def check_tokenizer(tokenizer: Any, name: str) -> None:
    """Make sure that a tokenizer has a vocabulary: transformers 5 gives one without it where files are missing.

    Raises:
        ModelError: it has none, but for special tokens, and the one entry that some classes begin with.
    """
    if len(tokenizer.get_vocab().keys() - special_tokens(tokenizer)) < 2:
        raise ModelError(f"the tokenizer of {name} is empty: are its files complete?")


def _is_token(value: Any) -> bool:
    return isinstance(value, str) or hasattr(value, "content")
