"""The text of a row: a column by name, or by a dotted path into nested ones; a list of strings is joined by a space.

The column may lie in the rows of any source: dictionaries from JSON and CSV, or Arrow tables.
"""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from clm_core.errors import DataError

JOINER = " "
"""Between the strings of a list, as the guide joins the answers of a question."""


def row_text(row: Any, column: str, place: str) -> str | None:
    """The text of a row, or None where it has none.

    Raises:
        DataError: the column holds something that is not text.
    """
    if isinstance(row, dict) and column in row:
        return _joined(row[column], column, place)
    value = row
    for name in column.split("."):
        value = _member(value, name)
    return _joined(value, column, place)


def arrow_texts(table: Any, column: str, place: Any) -> Iterator[str | None]:
    """The text of each row of a `pyarrow.Table`."""
    import pyarrow
    import pyarrow.compute

    names = [column] if column in table.column_names else column.split(".")
    values = table[names[0]]
    # Whole columns are taken out of structs at once; only what is left goes through Python.
    while len(names) > 1 and pyarrow.types.is_struct(values.type):
        del names[0]
        values = pyarrow.compute.struct_field(values, names[0])
    rest = ".".join(names[1:])
    for value in values.to_pylist():
        yield row_text(value, rest, str(place)) if rest else _joined(value, column, str(place))


def check_column(column: str, source: Any, place: Any) -> str:
    """Make sure that the column is there, and return the name of the top-level column that has it.

    `source` is a list of rows, or a `pyarrow.Schema`.

    Raises:
        DataError: it is not there; with the columns that are, and the likely one.
    """
    known = _row_columns(source) if isinstance(source, list) else _arrow_columns(source)
    if column not in known:
        raise DataError(f"{place} has no column {column!r}; {_columns_hint(column, known)}")
    return column if column in _top_level(source) else column.split(".")[0]


def has_column(row: dict[str, Any], column: str) -> bool:
    """Whether a row has the column."""
    return column in set(_nested(row))


def _joined(value: Any, column: str, place: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and all(item is None or isinstance(item, str) for item in value):
        return JOINER.join(item for item in value if item is not None)
    raise DataError(f"{place}: column {column!r} holds {type(value).__name__} {str(value)[:40]!r}, not text")


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
        is_list = types.is_list(field.type) or types.is_large_list(field.type)
        inner = field.type.value_type if is_list else field.type
        if types.is_struct(inner):
            names |= _arrow_columns(list(inner), f"{prefix}{field.name}.")
    return names


def _columns_hint(column: str, known: dict[str, None]) -> str:
    leaf = column.split(".")[-1]
    likely = [name for name in known if name.split(".")[-1] == leaf]
    likely += difflib.get_close_matches(column, known, n=1)
    hint = f"; did you mean --text-column {likely[0]}?" if likely else ""
    return f"its columns are {', '.join(known)}{hint}"
