"""Documents out of local files: .txt, .json, .jsonl, .csv and .parquet, plain or .gz, read in a stream.

A document that a row lacks comes out as None, so that whoever reads can count it.
"""

import csv
import glob
import gzip
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from clm_core.columns import arrow_texts, check_column, has_column, row_text
from clm_core.errors import DataError

Documents = Iterator[str | None]

PEEK = 1000
"""Rows in which a column has to occur before it is taken for missing: a sparse column may start late."""


@dataclass(frozen=True)
class Layout:
    """How documents lie in the rows of a file."""

    text_column: str
    sample_by: str


def expand(option: str, patterns: Iterable[str]) -> list[Path]:
    """The files that paths and globs name, each glob's in the order of their names.

    Raises:
        DataError: nothing matches, or a path is a folder, or of a kind that is not read.
    """
    return [path for pattern in patterns for path in _matches(option, pattern)]


def read(path: Path, layout: Layout) -> Documents:
    """The documents of a file.

    Raises:
        DataError: the file is missing, empty, damaged, or has no such column; with the line, where there is one.
    """
    return READERS[kind(path)](path, layout)


def kind(path: Path) -> str:
    """What a file is, by the end of its name: a key of READERS, if it can be read."""
    return Path(path.stem if _is_gzip(path) else path.name).suffix.lower()


def _matches(option: str, pattern: str) -> list[Path]:
    try:
        paths = [Path(pattern)] if Path(pattern).exists() else _glob(pattern)
    except OSError as error:
        raise DataError(f"{option}: cannot look for {pattern}: {error.strerror}") from None
    if not paths:
        raise DataError(f"{option}: there is no file {pattern} (looked in {Path.cwd()})")
    for path in paths:
        if path.is_dir():
            raise DataError(f"{option}: {path} is a folder: name files, or a glob such as {path / '*.jsonl'}")
        if kind(path) not in READERS:
            kinds = ", ".join(READERS)
            raise DataError(f"{option}: cannot tell what {path} is from its name: expected {kinds}, plain or .gz")
    return paths


def _glob(pattern: str) -> list[Path]:
    return sorted(map(Path, glob.glob(pattern, recursive=True)))  # noqa: PTH207  (pathlib's takes no absolute pattern)


def _is_gzip(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _read_text(path: Path, layout: Layout) -> Documents:
    """Documents whose concatenation is the file, to the last line break."""
    if layout.sample_by == "line":
        return iter(_lines(path))
    if layout.sample_by == "document":
        return iter(["".join(_lines(path))])
    return _paragraphs(_lines(path))


def _paragraphs(lines: Iterable[str]) -> Documents:
    paragraph: list[str] = []
    for line in lines:
        if paragraph and not paragraph[-1].strip() and line.strip():
            yield "".join(paragraph)
            paragraph = []
        paragraph.append(line)
    yield "".join(paragraph)


def _read_json(path: Path, layout: Layout) -> Documents:
    """An object on each line; or one value over all lines, which is an array of objects or a single one."""
    lines = _lines(path)
    head = list(_until_text(lines))
    first = head[-1].strip()
    if first.startswith("[") or first == "{":
        value = _json("".join(chain(head, lines)), path, 1)
        rows: Iterable[Any] = value if isinstance(value, list) else [value]
    else:
        rows = _json_lines(chain(head, lines), path)
    return _row_texts(rows, layout.text_column, path)


def _until_text(lines: Iterator[str]) -> Iterator[str]:
    """The lines up to and with the first that is not blank."""
    for line in lines:
        yield line
        if line.strip():
            return


def _json_lines(lines: Iterable[str], path: Path) -> Iterator[Any]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _json(line, path, number)


def _json(text: str, path: Path, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{path}, line {line + error.lineno - 1}, column {error.colno}"
        raise DataError(f"{place}: not valid JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # A number of thousands of digits, or thousands of brackets.
        raise DataError(f"{path}, line {line}: JSON that cannot be read: {error}") from None


def _read_csv(path: Path, layout: Layout) -> Documents:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # The module's own limit is 128 KB, less than many a document.
    return _row_texts(_csv_rows(path), layout.text_column, path)


def _csv_rows(path: Path) -> Iterator[dict[str, str]]:
    reader = csv.reader(_lines(path), strict=True)
    line = 1  # Where the row begins: a quote that is never closed is found only at the end of the file.
    try:
        header = next(reader)
        line = reader.line_num + 1
        for row in reader:
            if row and len(row) != len(header):
                raise csv.Error(f"{len(row)} fields where the header has {len(header)}")
            yield dict(zip(header, row, strict=False))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {line}: not valid CSV: {error}") from None


def _read_parquet(path: Path, layout: Layout) -> Documents:
    import pyarrow
    from pyarrow import parquet

    try:
        with _open(path) as raw, parquet.ParquetFile(raw) as file:
            column = check_column(layout.text_column, file.schema_arrow, path)
            for batch in file.iter_batches(batch_size=PEEK, columns=[column]):
                yield from arrow_texts(pyarrow.Table.from_batches([batch]), layout.text_column, path)
    except (pyarrow.ArrowException, OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(f"{path}: not a Parquet file that can be read: {error}") from None


READERS: dict[str, Callable[[Path, Layout], Documents]] = {
    ".txt": _read_text,
    ".json": _read_json,
    ".jsonl": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def _row_texts(rows: Iterable[Any], column: str, path: Path) -> Documents:
    """The text of each row; the column must occur in one of the first rows."""
    numbered = enumerate(_objects(rows, path), 1)
    head = list(_until_column(islice(numbered, PEEK), column))
    if not head:
        raise DataError(f"{path} has no rows")
    check_column(column, [row for _, row in head], path)
    for number, row in chain(head, numbered):
        yield _encodable(row_text(row, column, f"{path}, row {number}"), f"{path}, row {number}")


def _objects(rows: Iterable[Any], path: Path) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {number} is {str(row)[:40]!r}: expected an object with columns")
        yield row


def _until_column(rows: Iterable[tuple[int, Any]], column: str) -> Iterator[tuple[int, Any]]:
    """The rows up to and with the first that has the column, so that no more of them are held than need be."""
    for number, row in rows:
        yield number, row
        if has_column(row, column):
            return


def _encodable(text: str | None, place: str) -> str | None:
    """The text, unless it has half a character: JSON can escape the one without the other."""
    if text and not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(text[error.start]):04x}"
            raise DataError(f"{place}: {half} is half of a surrogate pair, which is not a character") from None
    return text


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file with their line breaks, decoded one by one so that an error can say where it is."""
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        if not number:
            raise DataError(f"{path} is empty")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(f"{path}, line {number}: not UTF-8: byte 0x{byte:02x} at position {error.start}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: gzip data end or break off after line {number}: {error}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if _is_gzip(path) else path.open("rb")
