"""The rows of the guide's script, as its collator gets them, for backends that follow it exactly."""

from typing import Any

import numpy as np

from clm_core.backend import Blocks
from clm_core.config import TokenizerOptions
from clm_core.errors import OptionError
from clm_core.models.tokenizers import load_tokenizer

TYPES = "token_type_ids"


class GuideRows:
    """Makes rows of blocks; `tokenizer` is for a DataCollatorForLanguageModeling, and pads with EOS, as the guide says.

    Raises:
        ModelError: the tokenizer cannot be loaded.
        OptionError: it has no end-of-sequence token, or gives more than clm keeps of a text.
    """

    def __init__(self, options: TokenizerOptions) -> None:
        self.tokenizer = load_tokenizer(options)
        if self.tokenizer.eos_token is None:
            raise OptionError("guide: the guide pads with the end-of-sequence token, and this tokenizer has none")
        self.tokenizer.pad_token = self.tokenizer.eos_token
        types = self.tokenizer("a").get(TYPES)
        if any(types or ()):
            raise OptionError(f"guide: this tokenizer returns {TYPES} other than 0, which prepared data does not store")
        self.has_types = types is not None

    def __call__(self, blocks: Blocks) -> list[dict[str, Any]]:
        """A row for each block: what the tokenizer gives, int64 of shape (block_size,)."""
        ids = blocks.astype(np.int64)
        more = {TYPES: np.zeros(ids.shape[1], np.int64)} if self.has_types else {}
        return [{"input_ids": row, "attention_mask": np.ones_like(row), **more} for row in ids]
