""".json and .jsonl files to rows: an object per line, an array, or a field of one object."""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

from clm_core.data.documents import Wanted
from clm_core.data.readers.json_tables import check_not_several, columns_to_rows, rows_under
from clm_core.data.readers.lines import read_lines
from clm_core.data.readers.opening import File
from clm_core.errors import DataError

SPACE = re.compile(r"[ \t\n\r]*")


def read_json(file: File, wanted: Wanted, field: str | None, encoding: str | None) -> Iterator[Any]:
    """The rows of a file; `field` says where in its values they are.

    One line is read at a time; if a value spans several, the file is read whole.

    Raises:
        DataError: it is not JSON, or one object of which it is not plain what its rows are; with the place.
    """
    values = _values(file, _decoder((*wanted.columns, *wanted.optional)), encoding)
    if field is not None:
        yield from chain.from_iterable(rows_under(value, field, file) for value in values)
        return
    head = list(islice(values, 2))
    if len(head) == 1 and isinstance(head[0], dict):
        if (rows := columns_to_rows(head[0], least=2)) is not None:
            yield from rows
            return
        check_not_several(head[0], wanted, file)
    in_arrays = bool(head) and isinstance(head[0], list)
    for value in chain(head, values):
        yield from value if in_arrays and isinstance(value, list) else [value]


def _values(file: File, decoder: json.JSONDecoder, encoding: str | None) -> Iterator[Any]:
    """The values at the top of a file."""
    lines = read_lines(file, encoding)
    head = list(_until_text(lines))
    try:
        first: Iterable[Any] = list(_decoded(head[-1], decoder))
    except json.JSONDecodeError as error:
        if error.pos < len(error.doc.rstrip()):
            raise _invalid(error, file, len(head)) from None
        yield from _explained("".join(chain(head, lines)), decoder, file, 1)  # The value continues.
        return
    except (ValueError, RecursionError):
        first = _explained(head[-1], decoder, file, len(head))
    yield from first
    for number, line in enumerate(lines, len(head) + 1):
        yield from _explained(line, decoder, file, number)


def _until_text(lines: Iterator[str]) -> Iterator[str]:
    """The lines up to and with the first that is not blank."""
    for line in lines:
        yield line
        if line.strip():
            return


def _explained(text: str, decoder: json.JSONDecoder, file: File, line: int) -> Iterator[Any]:
    try:
        yield from _decoded(text, decoder)
    except json.JSONDecodeError as error:
        raise _invalid(error, file, line) from None
    except (ValueError, RecursionError) as error:  # Thousands of digits or brackets, or a name twice.
        raise DataError(f"{file}, line {line}: cannot read the JSON: {error}") from None


def _decoded(text: str, decoder: json.JSONDecoder) -> Iterator[Any]:
    """The values that stand one after another in a text."""
    end = _skip_space(text, 0)
    while end < len(text):
        value, end = decoder.raw_decode(text, end)
        yield value
        end = _skip_space(text, end)


def _skip_space(text: str, start: int) -> int:
    found = SPACE.match(text, start)
    return found.end() if found else start


def _invalid(error: json.JSONDecodeError, file: File, line: int) -> DataError:
    end = min(error.pos, len(error.doc.rstrip()))  # What is missing at the end of a line is not in the next one.
    error = json.JSONDecodeError(error.msg, error.doc, end)
    place = f"{file}, line {line + error.lineno - 1}, column {error.colno}"
    between = error.doc[error.pos : error.pos + 1] == "," and error.doc[: error.pos].rstrip().endswith(("}", "]"))
    more = ": a comma between objects, which only an array has" if between else ""
    return DataError(f"{place}: not valid JSON: {error.msg}{more}")


def _decoder(columns: Iterable[str]) -> json.JSONDecoder:
    """A decoder that rejects an object with a duplicate key of a column, where others take the last."""
    parts = {part for column in columns for part in (column, *column.split("."))}

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            if double := next((name for name in parts if names.count(name) > 1), None):
                raise ValueError(f"an object has {double!r} {names.count(double)} times, but keys must be unique")
        return found

    return json.JSONDecoder(object_pairs_hook=unique)
