"""The table of file formats, and the documents of a file; paths, globs and URLs are resolved here.

A row without a document yields None, so that the caller can count it.
"""

import glob
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from clm_core.data.columns import row_documents
from clm_core.data.documents import Wanted, wanted
from clm_core.data.readers import remote
from clm_core.data.readers.csv_rows import AUTO, read_csv
from clm_core.data.readers.json_rows import read_json
from clm_core.data.readers.lines import read_lines, read_text
from clm_core.data.readers.opening import UNPACKERS, File, check_regular, kind
from clm_core.data.readers.parquet_rows import read_parquet
from clm_core.errors import DataError
from clm_core.paths import likely

Documents = Iterator[Any]

TEXT, JSON, CSV = (".txt",), (".json", ".jsonl", ".ndjson"), (".csv", ".tsv")
"""The kinds of files that an option can apply to."""

PROBED = 2**26
"""Bytes of a file above which it is not checked beforehand, if that could mean reading all of it."""


@dataclass(frozen=True)
class Layout:
    """Where documents are in the rows of a file."""

    text_column: str = "text"
    sample_by: str = "paragraph"
    json_field: str | None = None
    csv_delimiter: str = AUTO
    encoding: str | None = None
    prompt_column: str | None = None
    completion_column: str | None = None
    text_template: str | None = None
    messages_column: str | None = None

    @property
    def wanted(self) -> Wanted:
        """What of a row is its document."""
        others = (self.prompt_column, self.completion_column, self.text_template, self.messages_column)
        return wanted(self.text_column, *others)

    def key(self) -> str:
        """An identity for how files are read; newer options are part of it only if given, so older keys stay valid."""
        given = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        names = dict.fromkeys(("text_column", "sample_by", *given))
        return f"Layout({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"


def expand(option: str, patterns: Iterable[str]) -> list[File]:
    """The files that paths, URLs and globs name, each glob's in the order of their names.

    Raises:
        DataError: nothing matches, or a path is a folder, a pipe, or of a kind that is not read.
    """
    return [file for pattern in patterns for file in _matches(option, pattern)]


def read(file: File, layout: Layout) -> Documents:
    """The documents of a file.

    Raises:
        DataError: the file is missing, empty, damaged, or has no such column; with the line, where there is one.
    """
    return READERS[kind(file)](file, layout)


def check(file: File, layout: Layout) -> None:
    """Check that a file can be read and has the column, without reading much of it.

    Raises:
        DataError: it cannot be read, or does not have it.
    """
    if kind(file) == ".txt":
        next(read_text(file, layout.encoding))
    elif kind(file) != ".json" or (isinstance(file, Path) and file.stat().st_size <= PROBED):
        next(read(file, layout), None)


def _matches(option: str, pattern: str) -> list[File]:
    found: list[File] = [*remote.expand(pattern)] if remote.is_remote(pattern) else [*_local(option, pattern)]
    if not found:
        where = "" if remote.is_remote(pattern) else likely(pattern, file=True)
        raise DataError(f"{option}: there is no file {pattern}{where}")
    for file in found:
        if kind(file) not in READERS:
            kinds, packed = ", ".join(READERS), ", ".join(UNPACKERS)
            raise DataError(f"{option}: {file} has no known extension: expected {kinds}, plain or with {packed}")
    return found


def _local(option: str, pattern: str) -> list[Path]:
    pattern = unquote(urlsplit(pattern).path) if pattern.startswith("file://") else pattern
    try:
        paths = [Path(pattern)] if Path(pattern).exists() else _glob(pattern)
        for path in paths:
            check_regular(path, option)
    except OSError as error:
        raise DataError(f"{option}: cannot search for {pattern}: {error.strerror}") from None
    for path in paths:
        if path.is_dir():
            raise DataError(f"{option}: {path} is a folder: name files, or a glob such as {path / '*.jsonl'}")
    return paths


def _glob(pattern: str) -> list[Path]:
    return sorted(map(Path, glob.glob(pattern, recursive=True)))  # noqa: PTH207  (pathlib's takes no absolute pattern)


def _read_text(file: File, layout: Layout) -> Documents:
    """Documents whose concatenation is the file, down to the last line break."""
    if layout.sample_by == "line":
        return read_lines(file, layout.encoding)
    if layout.sample_by == "document":
        return iter(["".join(read_text(file, layout.encoding))])
    return _paragraphs(read_lines(file, layout.encoding))


def _paragraphs(lines: Iterable[str]) -> Documents:
    paragraph: list[str] = []
    for line in lines:
        if paragraph and not paragraph[-1].strip() and line.strip():
            yield "".join(paragraph)
            paragraph = []
        paragraph.append(line)
    yield "".join(paragraph)


def _read_json(file: File, layout: Layout) -> Documents:
    rows = read_json(file, layout.wanted, layout.json_field, layout.encoding)
    return row_documents(rows, layout.wanted, file)


def _read_csv(file: File, layout: Layout) -> Documents:
    rows = read_csv(file, [*layout.wanted.columns], layout.csv_delimiter, layout.encoding)
    return row_documents(rows, layout.wanted, file)


def _read_parquet(file: File, layout: Layout) -> Documents:
    return read_parquet(file, layout.wanted)


READERS: dict[str, Callable[[File, Layout], Documents]] = {
    **dict.fromkeys(TEXT, _read_text),
    **dict.fromkeys(JSON, _read_json),
    **dict.fromkeys(CSV, _read_csv),
    ".parquet": _read_parquet,
}
