"""One file of a model, in a folder or downloaded from the Hub; and the commit that a name stands for."""

from pathlib import Path

from clm_core.errors import ModelError
from clm_core.paths import CONFIGURATION


def fetch(name: str, revision: str, filename: str) -> Path | None:
    """A file of what has this name, downloaded if it is on the Hub; None if there is no such file.

    Raises:
        ModelError: the Hub, or this revision, cannot be reached.
    """
    if Path(name).is_dir():
        file = Path(name) / filename
        return file if file.is_file() else None
    from transformers.utils import cached_file

    try:
        found = cached_file(name, filename, revision=revision, _raise_exceptions_for_missing_entries=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: {filename} cannot be downloaded: {error}") from error
    return Path(found) if found else None


def commit_of(name: str, revision: str) -> str:
    """The commit of a model on the Hub, where what is under its name may change; of one in a folder, its revision.

    Raises:
        ModelError: the Hub, or this revision, cannot be reached.
    """
    from transformers.utils import extract_commit_hash

    found = None if Path(name).is_dir() else fetch(name, revision, CONFIGURATION)
    return extract_commit_hash(str(found), None) or revision if found else revision
