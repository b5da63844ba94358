"""Reads the cells of named columns in rows of any source; a dotted path leads into nested columns.

Rows are dictionaries from JSON and CSV, or those of Arrow tables. What a document is made of is in documents.py.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from itertools import chain, islice, repeat
from typing import Any

from clm_core.data.documents import Wanted
from clm_core.errors import DataError, did_you_mean, shown_names, similar
from clm_core.paths import in_shell

JOINER = " "
"""What joins the strings of a list, as the guide joins the answers of a question."""

PEEK = 1000
"""Rows that are searched for a column before it counts as missing: a sparse column may start late."""

PLAIN = "text"
"""The column name of a row that is a bare string."""

ANY = "*"
"""Stands in a list of columns for the keys of a map."""

OTHER_WAYS = {
    ("messages",): "--messages-column messages",
    ("conversations",): "--messages-column conversations",
    ("prompt", "completion"): "--prompt-column prompt --completion-column completion",
    ("instruction", "output"): "--prompt-column instruction --completion-column output",
    ("question", "answer"): "--prompt-column question --completion-column answer",
}
"""What to do with data that has these columns, and no text."""

NUMBERS = bool | int | float | Decimal
"""What a template takes besides text."""


class NoColumnError(DataError):
    """The data has no column of a name."""


def row_documents(rows: Iterable[Any], wanted: Wanted, place: Any) -> Iterator[Any]:
    """The document of each row, or None where it has none; each column must occur in one of the first.

    Raises:
        DataError: there are no rows, none has a column, or one is not a row; with its number.
    """
    numbered = enumerate(_objects(rows, place), 1)
    head = list(_until_columns(islice(numbered, PEEK), wanted.columns))
    if not head:
        raise DataError(f"{place} has no rows")
    for column, option in wanted.columns.items():
        check_column(column, [row for _, row in head], place, option)
    for number, row in chain(head, numbered):
        at = f"{place}, row {number}"
        yield encodable(row_text(row, wanted.text, at), at) if wanted.text else row_document(row, wanted, at)


def row_document(row: Any, wanted: Wanted, place: str) -> Any:
    """The document of a row, or None where it has none."""
    if not wanted.are_texts:
        return wanted.document([_cell(row, column) for column in (*wanted.columns, *wanted.optional)], place)
    texts = (row_text(row, column, place, numbers=wanted.takes_numbers) for column in wanted.columns)
    return wanted.document([encodable(text, place) for text in texts], place)


def row_text(row: Any, column: str, place: str, *, numbers: bool = False) -> str | None:
    """The text of a row, or None where it has none; `numbers` are taken too, and booleans, as JSON writes them.

    Raises:
        DataError: the column contains something that is not text.
    """
    cell = row[column] if isinstance(row, dict) and column in row else _cell(row, column)
    return _joined(cell, column, place, numbers=numbers)


def arrow_documents(table: Any, wanted: Wanted, place: Any, first: int = 1) -> Iterator[Any]:
    """The document of each row of a `pyarrow.Table`, which begins with this row of a file or dataset."""
    cells: list[Iterator[Any]] = [_arrow_cells(table, column) for column in wanted.columns]
    if wanted.are_texts:
        to_text = partial(_joined, place=str(place), numbers=wanted.takes_numbers)
        cells = [
            map(partial(to_text, column=column), found) for column, found in zip(wanted.columns, cells, strict=True)
        ]
    for column in wanted.optional:
        is_there = column in table.column_names
        cells.append(_arrow_cells(table, column) if is_there else _nothing(table))
    return (wanted.document(row, f"{place}, row {at}") for at, row in enumerate(zip(*cells, strict=True), first))


def arrow_columns(schema: Any, wanted: Wanted, place: Any) -> list[str]:
    """The top-level columns of a `pyarrow.Schema` to read.

    Raises:
        NoColumnError: one is not there.
    """
    tops = [check_column(column, schema, place, option) for column, option in wanted.columns.items()]
    return list(dict.fromkeys([*tops, *(name for name in wanted.optional if name in schema.names)]))


def check_column(column: str, source: Any, place: Any, option: str = "text_column") -> str:
    """Make sure that the column is there, which an option names; return the name of the top-level column that has it.

    `source` is a list of rows, or a `pyarrow.Schema`.

    Raises:
        NoColumnError: it is not there; with the columns that are, and the likely one.
    """
    known = _row_columns(source) if isinstance(source, list) else _arrow_columns(source)
    if column not in known and not _is_in_map(column, known):
        raise NoColumnError(f"{place} has no column {column!r}; {_columns_hint(column, known, option)}")
    top = column if column in _top_level(source) else column.split(".")[0]
    if not isinstance(source, list) and source.names.count(top) > 1:
        raise DataError(f"{place} has {source.names.count(top)} columns called {top!r}: rename one of them")
    return top


def has_column(row: dict[str, Any], column: str) -> bool:
    """Whether a row has the column."""
    return column in set(_nested(row))


def encodable(text: str | None, place: str) -> str | None:
    """The text, unless it has half a surrogate pair: JSON can escape one half without the other."""
    if text and not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(text[error.start]):04x}"
            raise DataError(f"{place}: {half} is half of a surrogate pair, not a character") from None
    return text


def _arrow_cells(table: Any, column: str) -> Iterator[Any]:
    import pyarrow
    import pyarrow.compute

    names = [column] if column in table.column_names else column.split(".")
    values = table[names[0]]
    # Whole columns are taken out of structs at once; only what is left goes through Python.
    while len(names) > 1 and pyarrow.types.is_struct(values.type):
        del names[0]
        values = pyarrow.compute.struct_field(values, names[0])
    rest = ".".join(names[1:])
    for value in values.to_pylist(maps_as_pydicts="strict"):
        yield _cell(value, rest) if rest else value


def _nothing(table: Any) -> Iterator[Any]:
    return repeat(None, table.num_rows)


def _objects(rows: Iterable[Any], place: Any) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows, 1):
        if isinstance(row, str):
            yield {PLAIN: row}
        elif isinstance(row, dict):
            yield row
        else:
            raise DataError(f"{place}, row {number} is {str(row)[:40]!r}: expected an object with columns")


def _until_columns(rows: Iterable[tuple[int, Any]], columns: Iterable[str]) -> Iterator[tuple[int, Any]]:
    """The rows up to the one by which each column has occurred, so that no more of them are kept than needed."""
    missing = set(columns)
    for number, row in rows:
        yield number, row
        missing -= set(_nested(row))
        if not missing:
            return


def _cell(row: Any, column: str) -> Any:
    """What is in a column of a row."""
    if isinstance(row, dict) and column in row:
        return row[column]
    value = row
    for name in column.split("."):
        value = _member(value, name)
    return value


def _joined(value: Any, column: str, place: str, *, numbers: bool = False) -> str | None:
    if numbers and not isinstance(value, str):
        value = [_as_json(item) for item in value] if isinstance(value, list) else _as_json(value)
    if isinstance(value, bytes):  # From programs that do not mark text as such in Parquet.
        value = _decoded(value, column, place)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and all(item is None or isinstance(item, str | bytes) for item in value):
        texts = (_decoded(item, column, place) if isinstance(item, bytes) else item for item in value)
        return JOINER.join(text for text in texts if text is not None)
    has_roles = isinstance(value, list) and any(isinstance(item, dict) and "role" in item for item in value)
    hint = f": for messages, --messages-column {in_shell(column)}" if has_roles else ""
    if isinstance(value, NUMBERS):
        hint = f": a template makes text of it, such as --text-template {in_shell(f'{{{column}}}')}"
    raise DataError(f"{place}: column {column!r} contains {type(value).__name__} {str(value)[:40]!r}, not text{hint}")


def _as_json(value: Any) -> Any:
    """A number or a boolean as JSON writes it; anything else as it is."""
    if isinstance(value, Decimal):  # As Parquet may have them; JSON has no name for such a number, but the same text.
        return str(value)
    return json.dumps(value) if isinstance(value, NUMBERS) else value


def _decoded(value: bytes, column: str, place: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise DataError(f"{place}: column {column!r} contains bytes {value[:20]!r}, which are not UTF-8 text") from None


def _member(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return value.get(name)
    if isinstance(value, list):
        return [_member(item, name) for item in value]
    return None


def _top_level(source: Any) -> Sequence[str]:
    return [name for row in source for name in row] if isinstance(source, list) else source.names


def _row_columns(rows: list[dict[str, Any]]) -> dict[str, None]:
    return dict.fromkeys(name for row in rows for name in _nested(row))


def _nested(row: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in row.items():
        yield prefix + name
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, dict):
            yield from _nested(inner, f"{prefix}{name}.")


def _arrow_columns(schema: Any, prefix: str = "") -> dict[str, None]:
    from pyarrow import types

    names: dict[str, None] = {}
    for field in schema:
        names[prefix + field.name] = None
        inner = _innermost(field.type)
        if types.is_struct(inner):
            names |= _arrow_columns(list(inner), f"{prefix}{field.name}.")
        elif types.is_map(inner):
            names[f"{prefix}{field.name}.{ANY}"] = None
    return names


def _innermost(kind: Any) -> Any:
    """What a list of any kind, a dictionary, or an extension is made of."""
    while inner := getattr(kind, "value_type", None) or getattr(kind, "storage_type", None):
        kind = inner
    return kind


def _is_in_map(column: str, known: dict[str, None]) -> bool:
    """Whether the column is in a map, whose keys are known only when it is read."""
    return any(name.endswith(f".{ANY}") and column.startswith(name.removesuffix(ANY)) for name in known)


def _columns_hint(column: str, known: dict[str, None], option: str) -> str:
    leaf = column.split(".")[-1]
    likely = [name for name in known if name.split(".")[-1] == leaf]
    likely += similar(column, known)
    likely = [name for name in likely if not name.endswith(f".{ANY}")]
    flag = f"--{option.replace('_', '-')}"
    ways = [f"{{{name}}} in {flag}" if option == "text_template" else f"{flag} {in_shell(name)}" for name in likely]
    if not ways and option == "text_column":
        ways = [way for names, way in OTHER_WAYS.items() if {*names} <= known.keys()]
    hint = did_you_mean(*ways[:1]) or f"; name the right one with {flag}"
    return f"its columns are {shown_names(known)}{hint}"
