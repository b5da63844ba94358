""".csv and .tsv files to rows, with any delimiter."""

import csv
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import chain

from clm_core.counts import with_noun
from clm_core.data.readers.lines import read_lines
from clm_core.data.readers.opening import File, kind
from clm_core.errors import DataError

AUTO, TAB = "auto", "tab"
"""The values of `csv_delimiter` for detection, and for the character that is hard to type."""

DELIMITERS = (",", ";", "\t", "|")
"""The delimiters tried in a header, the most likely first."""


def read_csv(file: File, columns: Sequence[str], delimiter: str, encoding: str | None) -> Iterator[dict[str, str]]:
    """The rows of a file.

    Raises:
        DataError: it is not CSV, or has one of the columns twice; with the line.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # The module's own limit is 128 KB, less than many a document.
    lines = read_lines(file, encoding, universal=True)
    first = next(lines)
    before = 0
    if delimiter == AUTO:
        said = re.fullmatch(r"sep=(.)\s*", first)  # As Excel writes it.
        if said:
            before, first = 1, next(lines, "")
        delimiter = said[1] if said else _likeliest(first, columns, file)
    delimiter = "\t" if delimiter == TAB else delimiter
    reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
    line = 1 + before  # Where the row begins: a quote that is never closed is found only at the end of the file.
    try:
        header = next(filter(None, reader), [])
        for column in columns:
            _check_header(header, column, file)
        line = reader.line_num + 1 + before
        for row in reader:
            if row and len(row) != len(header):
                raise csv.Error(_mismatch(len(row), len(header), delimiter))
            yield dict(zip(header, row, strict=False))
            line = reader.line_num + 1 + before
    except csv.Error as error:
        raise DataError(f"{file}, line {line}: not valid CSV: {error}") from None


def _likeliest(first: str, columns: Sequence[str], file: File) -> str:
    """The delimiter under which the header has most of the columns; of several, that under which it has the most."""
    if kind(file) == ".tsv":
        return "\t"

    def likelihood(delimiter: str) -> tuple[int, int]:
        names = next(csv.reader([first], delimiter=delimiter), [])
        return len({*columns} & {*names}), len(names)

    return max(DELIMITERS, key=likelihood)


def _check_header(header: list[str], column: str, file: File) -> None:
    if header.count(column) > 1:
        numbers = ", ".join(str(number) for number, name in enumerate(header, 1) if name == column)
        raise DataError(f"{file} has {header.count(column)} columns called {column!r} ({numbers}): rename one of them")


def _mismatch(fields: int, names: int, delimiter: str) -> str:
    shown = TAB if delimiter == "\t" else delimiter
    return (
        f"{with_noun(fields, 'field')}, but the header has {names}, separated by {shown!r}: set another delimiter with "
        "--csv-delimiter, and put text that contains the delimiter in quotes"
    )
