"""Tokenizers: loaded from a folder, the Hub or the sample."""

from pathlib import Path
from typing import Any

from clm_core import sample
from clm_core.config import SAMPLE, TokenizerOptions
from clm_core.errors import OptionError
from clm_core.models.adapters.finding import OF_TOKENIZER, where_is
from clm_core.models.loading import loaded
from clm_core.models.series import tokenizer_of_5
from clm_core.models.vocabulary import check_tokenizer
from clm_core.paths import CONFIGURATION


def load_tokenizer(options: TokenizerOptions) -> Any:
    """The tokenizer that the options name, or the one of the model.

    Raises:
        OptionError: the options name neither.
        ModelError: it cannot be found or read.
    """
    from transformers import AutoTokenizer

    options = options if options.tokenizer_name else where_is(options, *OF_TOKENIZER)
    name = str(sample.TOKENIZER) if options.tokenizer_name == SAMPLE else options.tokenizer_name
    revision = "main" if name else options.model_revision
    name = name or options.model_name_or_path
    if name is None:
        raise OptionError("no tokenizer is given: give --tokenizer-name a folder, a name on the Hub, or `sample`")
    more = {"tokenizer_type": "gpt2"} if _is_bare_gpt2(Path(name)) else {}
    tokenizer = loaded(
        "tokenizer",
        name,
        lambda: (
            tokenizer_of_5(name, revision)
            or AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False, **more)
        ),
    )
    check_tokenizer(tokenizer, name)
    return tokenizer


def _is_bare_gpt2(folder: Path) -> bool:
    """Whether a folder has a byte-level BPE as GPT-2 published it, with nothing that says so."""
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return {"vocab.json", "merges.txt"} <= present and not {
        "tokenizer.json",
        "tokenizer_config.json",
        CONFIGURATION,
    } & present
