"""Makes a repository equal to local files: one commit of what differs, or none; then checks it.

What an earlier attempt has uploaded is not uploaded again: large files are stored by their hash, before the commit.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_core.errors import OutputError
from clm_core.hub.account import Hub, Repository
from clm_core.hub_requests import LONGEST_WAIT, persist

SLOWEST = 50_000
"""Bytes per second. A slower upload hangs, as it may in Xet's code, where some requests have no timeout."""

NO_LINKS = "links are not uploaded"

Files = Mapping[str, Path | bytes]
"""The desired content of a repository: for each path, a local file or bytes."""


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """A repository that is equal to the files."""

    url: str
    commit: str
    changed: int
    """Files that were added, replaced or removed."""


def upload(
    hub: Hub,
    repository: Repository,
    files: Files,
    *,
    message: str,
    owned: Callable[[str], bool] = lambda path: False,
    stopped: threading.Event | None = None,
) -> Uploaded:
    """Upload what differs, and remove `owned` paths that are not among the files; touches nothing else.

    The repository and its branch are created if missing. A link is never followed, for it may lead to anything on this
    machine: it is named and left out, and what the repository has in its place stays.

    Raises:
        HubError: it failed, and would fail again now.
    """
    linked = {path for path, source in files.items() if isinstance(source, Path) and source.is_symlink()}
    if linked:
        hub.say(f"left out, because {NO_LINKS}: {', '.join(str(files[path]) for path in sorted(linked))}")
    files = {path: source for path, source in files.items() if path not in linked}

    def is_stale(path: str) -> bool:
        return owned(path) and not any(path == link or path.startswith(f"{link}/") for link in linked)

    def attempt() -> Uploaded:
        url = hub.make_once(repository)
        head, remote = _remote(hub.api, repository, repository.revision)
        changes = _changes(files, remote, is_stale)
        if changes:
            head = _commit(hub.api, repository, changes, message, head)
            _, remote = _remote(hub.api, repository, head)
            if left := _changes(files, remote, is_stale):
                raise ConnectionError(
                    f"{repository.id} does not have what was uploaded (first missing: {next(iter(left))})"
                )
        return Uploaded(url=url, commit=head, changed=len(changes))

    sizes = [len(source) if isinstance(source, bytes) else source.stat().st_size for source in files.values()]
    limit = LONGEST_WAIT + sum(sizes) / SLOWEST
    return persist(attempt, patience=hub.patience, say=hub.say, stopped=stopped, limit=limit)


def refuse_link(file: Path) -> None:
    """Make sure that what an upload cannot do without is no link.

    Raises:
        OutputError: it is.
    """
    if file.is_symlink():
        raise OutputError(f"{file} is a link, and {NO_LINKS}: put the file itself there")


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep huggingface_hub from drawing bars, where others are drawn already."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _remote(api: Any, repository: Repository, revision: str) -> tuple[str, dict[str, Any]]:
    """The commit of a revision, and its files by their paths."""
    at = {"repo_id": repository.id, "repo_type": repository.kind}
    head: str = api.repo_info(**at, revision=revision).sha
    entries = api.list_repo_tree(**at, revision=head, recursive=True)
    return head, {entry.path: entry for entry in entries if hasattr(entry, "blob_id")}


def _changes(files: Files, remote: Mapping[str, Any], owned: Callable[[str], bool]) -> dict[str, Path | bytes | None]:
    """What has to be written, and, as None, what has to be removed."""
    written = {path: source for path, source in files.items() if not _is_same(source, remote.get(path))}
    return {**written, **{path: None for path in remote if path not in files and owned(path)}}


def _commit(
    api: Any, repository: Repository, changes: Mapping[str, Path | bytes | None], message: str, head: str
) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    operations = [
        CommitOperationDelete(path_in_repo=path)
        if source is None
        else CommitOperationAdd(path_in_repo=path, path_or_fileobj=source)
        for path, source in changes.items()
    ]
    done = api.create_commit(
        repo_id=repository.id,
        repo_type=repository.kind,
        revision=repository.revision,
        operations=operations,
        commit_message=message,
        parent_commit=head,  # What changed there in between is compared again, not overwritten unseen.
    )
    oid: str = done.oid
    return oid


def _is_same(source: Path | bytes, entry: Any) -> bool:
    """Whether a file on the Hub has this content, by its size and then by its hash."""
    if entry is None or entry.size != (len(source) if isinstance(source, bytes) else source.stat().st_size):
        return False
    if entry.lfs is not None:
        return bool(entry.lfs.sha256 == _hash(source, hashlib.sha256()))
    return bool(entry.blob_id == _hash(source, hashlib.sha1(b"blob %d\0" % entry.size)))


def _hash(source: Path | bytes, digest: Any) -> str:
    if isinstance(source, bytes):
        digest.update(source)
    else:
        with source.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    text: str = digest.hexdigest()
    return text
