"""The base of an adapter in a folder: which weights it had when the adapter began, and whether it has them still."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clm_core.backend import Model
from clm_core.backend.adapter import BASE, Adapter
from clm_core.durable.checksums import Listed, list_files, read_record
from clm_core.durable.stamps import once
from clm_core.errors import ModelError
from clm_core.models import weight_files


def list_base(base: str) -> Listed:
    """The weight files of a model in a folder with their sums; they are read again only when one has changed.

    Raises:
        ModelError: one cannot be read.
    """
    folder = Path(base)
    files = weight_files.find(Model(name_or_path=base, revision="main", architecture=None, seed=0))
    names = [file.name for file in files]
    try:
        found: Listed = json.loads(once("weights of a base", files, lambda: json.dumps(list_files(folder, names))))
    except OSError as error:
        raise ModelError(f"the weights of {base} cannot be read: {error}") from None
    return found


def read_base(file: Path) -> Listed:
    """The sums of the base that an adapter was trained beside, from the file beside the adapter.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        return read_record(file)
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from None


def check_base(adapter: Adapter) -> None:
    """Make sure that the base of an adapter has the weights that the adapter was trained beside, where it is known.

    Raises:
        ModelError: it has others; the file is named.
    """
    if wrong := base_faults(adapter):
        raise ModelError(
            f"{adapter.folder} is an adapter of {adapter.base}, whose weights are not those that it was trained "
            f"beside: {', '.join(wrong)}: put that model back there, or train an adapter for the one that is there now"
        )


def base_faults(adapter: Adapter) -> list[str]:
    """What differs in the base of an adapter from when the adapter began, a line for each file; nothing if all is so.

    Of an adapter of another program, of an earlier clm, or of a model on the Hub, whose commit is kept, it is unknown.
    """
    if adapter.base_files is None or not Path(adapter.base).is_dir():
        return []
    return [*_differences(adapter.base_files, list_base(adapter.base))]


def write_base(adapter: Adapter, folder: Path) -> None:
    """Write the sums of the base beside an adapter, where they are known; peft does not read them."""
    if adapter.base_files is not None:
        (folder / BASE).write_text(json.dumps(adapter.base_files, indent=2) + "\n", encoding="utf-8")


def _differences(before: Mapping[str, Any], now: Listed) -> Iterator[str]:
    for name in sorted(before.keys() | now.keys()):
        if name not in now:
            yield f"{name} is missing"
        elif name not in before:
            yield f"{name} is new"
        elif now[name] != before[name]:
            yield f"{name} is another"
