"""The cache of prepared data: each folder appears whole; one process writes it, the others wait."""

import errno
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from clm_core.data.manifest import AGAIN, FORMAT, MANIFEST, Manifest, read_manifest
from clm_core.data.prepared import FILES, Prepared
from clm_core.durable.files import TEMPORARY as NEW_FILE
from clm_core.durable.files import discard
from clm_core.durable.locks import cache_folder, lock
from clm_core.errors import DataError, OutputError

TEMPORARY = ".clm-preparing-"
"""Prefix of the name of a folder that is being filled."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """Everything that prepared data depends on, and nothing else: neither the number of threads nor the engine."""

    source: dict[str, str | None]
    """The fingerprint of each split's documents."""
    tokenizer: str
    """SHA-256 of what the tokenizer does with text."""
    options: dict[str, Any]

    @classmethod
    def of(cls, manifest: Manifest) -> "Content":
        """The inputs of prepared data."""
        return cls(source=manifest.source, tokenizer=manifest.tokenizer, options=manifest.options)

    def key(self) -> str:
        """The key of the data in the cache."""
        content = json.dumps([FORMAT, self.source, self.tokenizer, self.options], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Reserved:
    """The folder for some data, while no other process may write there."""

    folder: Path
    found: Prepared | None
    """The data, if it is there already and complete; else it is to be written there."""


@contextmanager
def reserved(
    content: Content, folder: Path | None, *, overwrite: bool, say: Callable[[str], None], once: bool = False
) -> Iterator[Reserved]:
    """Reserve `folder`, or the folder in the cache, for the data of this content; other processes wait for the block.

    `once`: see `find`.

    Raises:
        OutputError: the folder cannot be written, also where the block fails to, or contains something else.
    """
    target = folder or cache_folder() / content.key()
    with ExitStack() as lock:
        try:
            lock.enter_context(locked(target))
        except OutputError as error:
            # A cache that cannot be written, such as one that several people read: what it has is whole.
            if not (found := None if overwrite else find(content, target, say, once=once)):
                raise OutputError(f"{error}{'' if folder else ': set CLM_CACHE to a folder that can be'}") from error
            yield Reserved(target, found)
            return
        # What is in the cache is clm's; another folder may have other data, or a manifest that says so no more.
        ours = overwrite or folder is None or _is_of(content, target)
        found = find(content, target, say, once=once) if ours and not overwrite else None
        if not found:
            check_replaceable(target, overwrite=ours, in_cache=folder is None)
        yield Reserved(target, found)


def find(content: Content, folder: Path, say: Callable[[str], None], *, once: bool = False) -> Prepared | None:
    """The data of this content, if the folder has it complete; `say` hears that it is damaged.

    Every byte is verified, unless that was done before and `once` is enough.
    """
    if not (folder / MANIFEST).exists():
        return None
    try:
        prepared = Prepared.open(folder)
        prepared.verify(once=once)
    except DataError as error:
        say(f"{str(error).removesuffix(f': {AGAIN}')}: the cached data is damaged; preparing it again")
        return None
    return prepared if Content.of(prepared.manifest) == content else None


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Make other processes that would prepare the same folder wait; the system releases the lock when a process dies.

    Raises:
        OutputError: the folder of the locks cannot be written.
    """
    try:
        with lock(target):
            yield
    except OSError as error:
        raise OutputError(f"cannot write prepared data to {target}: {error.strerror or error}") from None


@contextmanager
def filling(target: Path) -> Iterator[Path]:
    """A temporary folder beside the target that replaces it when the block succeeds. The target must be locked."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    temporary = target.parent / f"{TEMPORARY}{target.name}-{token_hex(4)}"  # mkdtemp's are for their owner alone.
    temporary.mkdir()
    try:
        yield temporary
        _move(temporary, target)
    finally:
        discard(temporary)


def check_replaceable(target: Path, *, overwrite: bool, in_cache: bool = False) -> None:
    """Make sure that nothing but prepared data would be lost, and that only if the user asked for it.

    Elsewhere than `in_cache`, files of these names without a manifest may be another program's, such as nanoGPT's.

    Raises:
        OutputError: something would.
        DataError: it may be, for its manifest is damaged.
    """
    if not target.exists():
        return
    if target.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise OutputError(f"output_dir {target} is the current folder, or contains it: choose a new folder")
    names = None
    if target.is_dir():
        names = {path.name for path in target.iterdir() if not path.name.startswith(NEW_FILE)}
    is_data = names is not None and not names - FILES and (MANIFEST in names or not names or in_cache)
    if not is_data:
        way_out = "remove it" if in_cache else "choose another folder"
        raise OutputError(f"{target} exists already and contains more than prepared data: {way_out}")
    if names and not overwrite:
        read_manifest(target)  # One that is damaged is said to be; it may be of the same data.
        raise OutputError(f"{target} contains other prepared data: choose another folder, or give --overwrite-cache")


def _is_of(content: Content, folder: Path) -> bool:
    """Whether the folder's manifest names this data; it may be damaged."""
    try:
        return Content.of(read_manifest(folder)) == content
    except DataError:
        return False


def _remove_leftovers(target: Path) -> None:
    """Remove what killed processes left beside the target, which is locked; live ones lock their own."""
    from filelock import Timeout

    for path in target.parent.glob(f"{TEMPORARY}*"):
        owner = target.with_name(path.name.removeprefix(TEMPORARY).rpartition("-")[0])
        if owner == target:
            discard(path)
            continue
        with suppress(Timeout), lock(owner, timeout=0):
            discard(path)


def _move(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)  # Onto nothing, or an empty folder.
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        # Moved aside in one step, so that nobody sees it half deleted.
        aside = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{target.name}-", dir=target.parent))
        try:
            target.rename(aside / target.name)
            folder.rename(target)
        finally:
            if not target.exists():
                (aside / target.name).rename(target)
            discard(aside)
