"""generation_config.json, which says how a model generates: read, and checked before anything slow starts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clm_core.backend import Model
from clm_core.config import TokenizerOptions
from clm_core.errors import ModelError, first_line
from clm_core.models.adapters.finding import where_is
from clm_core.paths import GENERATION_CONFIG

WAY = "correct or remove it"
"""What to do about such a file: without it, the configuration says how to generate."""


def load_settings(options: TokenizerOptions) -> Any:
    """What the model says of how it generates, or else the base of the adapter; None if neither says anything.

    Raises:
        ModelError: the file is damaged, or has values that transformers does not load.
    """
    path = _find(where_is(options, GENERATION_CONFIG))
    return _loaded(path) if path else None


def check_settings(model: Model) -> None:
    """Make sure that transformers loads what a model, and its adapter, say of how they generate.

    It would fail with an error that does not name the file, or load the model without it.

    Raises:
        ModelError: a file is damaged, or has values that transformers does not load.
    """
    for place in _places(model):
        if path := _find(place):
            _loaded(path)


def load_ends(options: TokenizerOptions, tokenizer: Any) -> tuple[int, ...]:
    """The tokens that end a generated text: the tokenizer's, and all that generation_config.json names.

    Raises:
        ModelError: that file is damaged.
    """
    path = _find(where_is(options, GENERATION_CONFIG))
    named = _eos_of(path) if path else []
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return tuple(dict.fromkeys([*own, *named]))


def _places(model: Model) -> Iterator[TokenizerOptions]:
    if model.name_or_path:
        yield TokenizerOptions(model_name_or_path=model.name_or_path, model_revision=model.revision)
    if model.adapter and model.adapter.folder:
        yield TokenizerOptions(model_name_or_path=model.adapter.folder)


def _find(options: TokenizerOptions) -> Path | None:
    from transformers.utils import cached_file

    if options.model_name_or_path and (local := Path(options.model_name_or_path) / GENERATION_CONFIG).exists():
        return local  # A folder of this name too, which transformers takes for no file.
    missing = ("gated_repo", "missing_entries", "connection_errors")
    at: dict[str, Any] = {f"_raise_exceptions_for_{what}": False for what in missing}
    path = cached_file(options.model_name_or_path, GENERATION_CONFIG, revision=options.model_revision, **at)
    return Path(path) if path else None


def _loaded(path: Path) -> Any:
    from transformers import GenerationConfig

    content = _read(path)
    try:
        return GenerationConfig.from_dict(content)
    except Exception as error:  # Whatever a value of a wrong type makes it raise.
        raise ModelError(f"{path}: {first_line(error).rstrip('.')}: {WAY}") from None


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():  # Reading a pipe would wait for its other end.
        raise ModelError(f"{path} is not a file: {WAY}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged, or cannot be read: {first_line(error)}: {WAY}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} is damaged: it holds no JSON object: {WAY}")
    return content


def _eos_of(path: Path) -> list[int]:
    found = _read(path).get("eos_token_id")
    ids = [] if found is None else found if isinstance(found, list) else [found]
    if wrong := [token for token in ids if type(token) is not int or token < 0]:
        raise ModelError(f"{path}: eos_token_id contains {wrong[0]!r}, which is not a token id")
    return ids
