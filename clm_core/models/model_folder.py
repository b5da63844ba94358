"""Files beside the weights: the tokenizer, and settings that fit the model and hold no local paths."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clm_core.durable import write
from clm_core.models.architectures import count_positions, position_table_size
from clm_core.models.series import tokenizer_in_4
from clm_core.paths import CONFIGURATION, GENERATION_CONFIG

OF_THIS_MACHINE = ("is_local", "local_files_only", "name_or_path", "commit_hash")
"""What transformers writes of how a tokenizer was loaded."""

Settings = dict[str, Any]


def complete(folder: Path, tokenizer: Any | None, architecture: Any) -> None:
    """Complete the folder of a written model for other programs, which know nothing but the folder.

    `architecture` is the configuration that the model was made from. The tokenizer itself stays as it is.
    """
    if tokenizer is not None:
        _save_tokenizer(tokenizer, folder, architecture)
    _rewrite(folder / CONFIGURATION, _portable)
    _rewrite(folder / GENERATION_CONFIG, lambda settings: _within(position_table_size(architecture), settings))


def _save_tokenizer(tokenizer: Any, folder: Path, architecture: Any) -> None:
    """Write a tokenizer so that transformers 4 and 5 read it, and truncate at the model's last position."""
    tokenizer.save_pretrained(folder)
    positions = count_positions(architecture)

    def fitting(written: Settings) -> Settings:
        written = tokenizer_in_4(written, tokenizer)
        if positions is not None:
            written["model_max_length"] = min(written.get("model_max_length", positions), positions)
        return {name: value for name, value in _portable(written).items() if not _is_path(name, value)}

    _rewrite(folder / "tokenizer_config.json", fitting)


def _within(positions: int | None, settings: Settings) -> Settings:
    """Settings of `generate` that end a text where the positions do, if they do not say themselves where it ends.

    Without, a pipeline asks for 256 tokens, and PyTorch fails at the first that has no position. They are in
    transformers' own order, as they will be when the model is read and written again.
    """
    settings = {name: value for name, value in settings.items() if name != "_from_model_config"}
    if positions is None or settings.get("max_length") or settings.get("max_new_tokens"):
        return settings
    return dict(sorted({**settings, "max_length": positions}.items()))


def _portable(settings: Settings) -> Settings:
    """Settings without traces of where they were read from."""
    return {name: value for name, value in settings.items() if name.removeprefix("_") not in OF_THIS_MACHINE}


def _is_path(name: str, value: Any) -> bool:
    """Whether a setting says where something lies here."""
    return name.endswith(("file", "path", "dir")) and isinstance(value, str) and os.path.isabs(value)  # noqa: PTH117


def _rewrite(file: Path, change: Callable[[Settings], Settings]) -> None:
    """Change the settings in a file, if it is there."""
    if not file.is_file():
        return
    before = json.loads(file.read_text(encoding="utf-8"))
    after = change(dict(before))
    if after != before:
        write(file, json.dumps(after, indent=2, ensure_ascii=False) + "\n")
