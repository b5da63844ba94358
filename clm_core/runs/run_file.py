"""The options of a run in files: to repeat and resume it from any folder, and without this machine's in checkpoints."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from clm_core import options
from clm_core.config import NAMED, TrainConfig, named
from clm_core.data.readers.remote import is_remote
from clm_core.errors import OutputError
from clm_core.options.resolve import Request
from clm_core.record import without_folders
from clm_core.redaction import without_credentials
from clm_core.runs.changes import ELSEWHERE

LOCAL = ("train_file", "validation_file", "prepared", *NAMED)
"""The options that may name something on this machine."""


def of_run(request: Request[TrainConfig], begun_from: Path | None = None) -> str:
    """The options of a run, so that it can be repeated, resumed and evaluated from any folder.

    `begun_from` is the checkpoint of another run that it follows.
    """
    config = request.config
    named = os.path.abspath(begun_from) if begun_from else None  # noqa: PTH100  (not through links)
    once: dict[str, Any] = {"overwrite_output_dir": False, "overwrite_cache": False, "resume_from_checkpoint": named}
    return options.to_yaml(
        replace(with_absolute_paths(config), **once), {request.backend.name: request.backend_options}
    )


def shared(request: Request[TrainConfig]) -> str:
    """The options that a resumption is compared with, for a checkpoint: those of the training, with no local folder."""
    import yaml

    content = {
        name: value
        for name, value in options.changed(with_absolute_paths(request.config)).items()
        if name not in ELSEWHERE
    }
    if own := options.changed(request.backend_options):
        content[request.backend.name] = own
    text: str = yaml.safe_dump(without_folders(content), sort_keys=False, allow_unicode=True)
    return text


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """The options with absolute paths, wherever they name something on this machine."""
    local: dict[str, Any] = {
        name: tuple(map(_absolute, value)) if isinstance(value, tuple) else _absolute(value)
        for name, value in named(config, LOCAL).items()
    }
    return replace(config, **local)


def check_keeps_inputs(config: TrainConfig, folder: Path) -> None:
    """Make sure that a folder that is to be overwritten contains nothing that the run starts from.

    Raises:
        OutputError: it contains a file or folder that an option names.
    """
    for name, value in named(config, LOCAL).items():
        for path in filter(_is_local, _listed(value)):
            if lies_in(folder, Path(path)):
                raise OutputError(f"output_dir {folder} would be overwritten, but {name} {path} is in it")


def lies_in(folder: Path, path: Path) -> bool:
    """Whether a path is that of a folder, or leads into it, whatever links there are."""
    resolved = path.resolve()
    return folder.resolve() in (resolved, *resolved.parents)


def _absolute(path: str) -> str:
    """An existing path or a glob as an absolute one; a name on the Hub or a URL as it is.

    Credentials in a URL are left out.
    """
    if is_remote(path):
        return without_credentials(path)
    return os.path.abspath(path) if _is_local(path) else path  # noqa: PTH100  (a glob is no path to resolve)


def _is_local(name: str) -> bool:
    """Whether this is an existing path, or one that may be gone and cannot be a name on the Hub, or a glob."""
    return Path(name).exists() or name.startswith(".") or any(sign in name for sign in "*?[")


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
