"""Adapters that there are: found in a folder or on the Hub, with the model that they belong to."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from clm_core.backend.adapter import BASE, CONFIG, WEIGHTS, Adapter
from clm_core.config import TokenizerOptions
from clm_core.errors import ModelError
from clm_core.models.adapters.base import read_base
from clm_core.models.adapters.configuration import read_configuration
from clm_core.models.stored_file import fetch
from clm_core.paths import in_command, is_path

Options = TypeVar("Options", bound=TokenizerOptions)

MODEL = ("model.safetensors", "model.safetensors.index.json")
"""Files of which a folder with a whole model has one."""

OF_TOKENIZER = ("tokenizer_config.json", "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
"""Files of which a folder with a tokenizer has one."""


def find_adapter(name: str, revision: str) -> Adapter | None:
    """The adapter in a folder or on the Hub, downloaded; None if there is no adapter, but perhaps a model.

    Raises:
        ModelError: it is of a kind that clm does not have, or its model is not where it was.
    """
    file = _file(name, revision, CONFIG)
    if file is None:
        return None
    if whole := next((each for each in MODEL if _file(name, revision, each)), None):
        raise ModelError(f"{name} has both an adapter ({CONFIG}) and a model ({whole}): take one of them out")
    if not Path(name).is_dir():
        _file(name, revision, WEIGHTS)  # Beside the other one, now that it is known that it is needed.
    adapter = read_configuration(file, folder=str(file.parent))
    if is_path(adapter.base) and not Path(adapter.base).is_dir():
        raise ModelError(_moved(file, adapter))
    base = Path(adapter.base)
    if (base / CONFIG).is_file() and not any((base / each).is_file() for each in MODEL):
        raise ModelError(
            f"{file}: its model {base} is an adapter itself: merge that one (clm merge-adapter "
            f"{in_command(adapter.base)} -o DIR), and name the model that this makes in base_model_name_or_path"
        )
    kept = _file(name, revision, BASE) if base.is_dir() else None
    return replace(adapter, base_files=read_base(kept)) if kept else adapter


def adapter_beside_its_base(folder: Path) -> Adapter | None:
    """The adapter in a folder, where its model is a folder that is at its place; else None, whatever the reason."""
    with suppress(ModelError):
        adapter = find_adapter(str(folder), "main")
        return adapter if adapter and adapter.base_files is not None else None
    return None


def adapter_without_its_base(folder: Path) -> Adapter | None:
    """The adapter in a folder, where its model is a folder that is not there any more; else None."""
    with suppress(ModelError):
        file = folder / CONFIG
        adapter = read_configuration(file, folder=str(folder)) if file.is_file() else None
        is_gone = adapter is not None and Path(adapter.base).is_absolute() and not Path(adapter.base).is_dir()
        return adapter if is_gone else None
    return None


def where_is(options: Options, *files: str) -> Options:
    """Options that name the model with one of these files: an adapter's own, if it has none of them, its base's."""
    name = options.model_name_or_path
    if name is None or not (file := _file(name, options.model_revision, CONFIG)):
        return options
    if any(_file(name, options.model_revision, each) for each in files):
        return options
    adapter = read_configuration(file, folder=str(file.parent))
    return replace(options, model_name_or_path=adapter.base, model_revision=adapter.base_revision)


def _file(name: str, revision: str, filename: str) -> Path | None:
    """A file in a folder or on the Hub; None if there is none, or the Hub does not answer, which others say better."""
    with suppress(ModelError):
        return fetch(name, revision, filename)
    return None


def _moved(file: Path, adapter: Adapter) -> str:
    """What to do about a base that is not at its place."""
    return (
        f"{file.parent} is an adapter of {adapter.base}, and there is no such folder: put the model back there, or "
        f"make a link to where it is now (ln -s NEW-PLACE {in_command(adapter.base)})"
    )
