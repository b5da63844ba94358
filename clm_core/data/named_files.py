"""The files that the options name: which of them a shard reads, and by what their content is known."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from clm_core.config import COLUMNS, DataOptions
from clm_core.counts import with_noun
from clm_core.data.readers import files
from clm_core.data.readers.opening import File, kind
from clm_core.durable import stamps
from clm_core.errors import DataError, OptionError
from clm_core.shards import Shard

FILES = ("train_file", "validation_file")
OF_KINDS = {
    "sample_by": files.TEXT,
    "json_field": files.JSON,
    "csv_delimiter": files.CSV,
    "encoding": (*files.TEXT, *files.JSON, *files.CSV),
}
"""The options that apply only to some kinds of files."""

BY_FILE = "file"
"""The value of `shard_by` that shares out files."""


@dataclass(frozen=True, kw_only=True)
class NamedFiles:
    """The files of an option, in order, and those of them that are read."""

    listed: tuple[File, ...]
    own: range
    """The numbers of those that are read: of all, unless the shards share out files."""
    layout: files.Layout
    by_file: bool = False
    """Whether `fingerprint` and the documents that are held out follow from one file at a time."""
    anew: bool = False
    """Whether `fingerprint` reads files that it has read before, and that have not changed since."""

    def read(self, number: int) -> files.Documents:
        """The documents of a file."""
        return files.read(self.listed[number], self.layout)

    def check(self) -> None:
        """Check the first file that is read.

        Raises:
            DataError: it cannot be read, or has no such column.
        """
        for number in self.own[:1]:
            files.check(self.listed[number], self.layout)

    def fingerprint(self) -> str:
        """SHA-256 over the content of the files and how they are read; their names do not matter, only their kinds.

        By file, it is a sum, so that those of all shards add up to that of the whole.
        """
        own = self.listed[self.own.start : self.own.stop]
        local = [file for file in own if isinstance(file, Path)]
        if self.anew or len(local) < len(own):
            return self._fingerprint()
        what = f"fingerprint of {self.layout.key()} {self.own.start if self.by_file else 'as a whole'}"
        return stamps.once(what, local, self._fingerprint)

    def _fingerprint(self) -> str:
        if self.by_file:
            return added(self._digest_of(number) for number in self.own)
        digest = hashlib.sha256(self.layout.key().encode())
        for file in self.listed:
            digest.update(_content(file))
        return digest.hexdigest()

    def _digest_of(self, number: int) -> str:
        return hashlib.sha256(f"{self.layout.key()} {number} ".encode() + _content(self.listed[number])).hexdigest()


def added(fingerprints: Iterable[str]) -> str:
    """The sum of fingerprints, modulo 2**256: that of the files of all of them."""
    return f"{sum(int(found, 16) for found in fingerprints) % 2**256:064x}"


def is_by_file(options: Mapping[str, Any]) -> bool:
    """Whether the shards share out files, by the options of a command, or those in a manifest."""
    return options.get("shard_by") == BY_FILE


def named_files(options: DataOptions) -> dict[str, NamedFiles]:
    """The files of each option, of kinds that the other options say something about.

    Raises:
        OptionError: an option is for files of other kinds, or there are fewer files than shards.
        DataError: a file does not exist, or is of an unsupported kind.
    """
    found = {name: files.expand(name, getattr(options, name)) for name in FILES}
    _check_kinds(options, {kind(file) for name in FILES for file in found[name]})
    layout, by_file, anew = layout_of(options), is_by_file(vars(options)), bool(vars(options).get("overwrite_cache"))
    shard = Shard.parse(getattr(options, "shard", None)) if by_file else Shard()
    total = sum(map(len, found.values()))
    if total < shard.count:
        raise OptionError(
            f"shard {shard}: there {'is' if total == 1 else 'are'} only {with_noun(total, 'file')} to share out: "
            f"use {with_noun(total, 'shard')} at most, or leave shard_by {BY_FILE} out"
        )
    named, first = {}, 0
    for name, of_option in found.items():
        start, stop = (min(max(place - first, 0), len(of_option)) for place in shard.part_of(total))
        own = range(start, stop)
        named[name] = NamedFiles(listed=tuple(of_option), own=own, layout=layout, by_file=by_file, anew=anew)
        first += len(of_option)
    return named


def local_files(options: DataOptions) -> list[Path]:
    """The files of all options that are on this machine.

    Raises:
        DataError: a file does not exist, or is of an unsupported kind.
    """
    found = (file for name in FILES for file in files.expand(name, getattr(options, name)))
    return [file for file in found if isinstance(file, Path)]


def layout_of(options: DataOptions) -> files.Layout:
    """How the options say that files are read."""
    return files.Layout(**{field.name: getattr(options, field.name) for field in fields(files.Layout)})


def digest_names(found: Iterable[NamedFiles]) -> str:
    """SHA-256 of the names of all files in their order, without the folder that all are in, which may be elsewhere."""
    lists = [[_place(file) for file in named.listed] for named in found]
    common = os.path.commonprefix([path for paths in lists for path in paths])  # noqa: RUF071  (of URLs too)
    folder = common.rpartition("/")[0]
    content = json.dumps([[path.removeprefix(folder) for path in paths] for paths in lists])
    return hashlib.sha256(content.encode()).hexdigest()


def _check_kinds(options: DataOptions, kinds: set[str]) -> None:
    """Make sure that each option that is for some kinds of files has one."""
    layout = files.Layout()
    for name in COLUMNS:
        if kinds == {*files.TEXT} and (column := getattr(options, name)) != getattr(layout, name):
            raise OptionError(f"{name} {column!r}: .txt files have no columns, leave it out")
    for name, known in OF_KINDS.items():
        if getattr(options, name) != getattr(layout, name) and not kinds & {*known}:
            raise OptionError(f"{name} {getattr(options, name)} is for {', '.join(known)} files, and none is given")


def _content(file: File) -> bytes:
    """What the content of a file and its kind are known by."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest() + kind(file).encode()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from None


def _place(file: File) -> str:
    """The path or URL of a file; over the web without its query, which may be another for each machine."""
    if isinstance(file, Path):
        return Path(os.path.abspath(file)).as_posix()  # noqa: PTH100  (links stay what they are)
    return str(file).partition("?")[0] if file.url.startswith("http") else str(file)
