"""A single JSON object to rows: an object that holds rows, or a table with columns as lists."""

from collections.abc import Iterable, Iterator
from typing import Any

from clm_core.counts import with_noun
from clm_core.data.columns import NoColumnError, has_column
from clm_core.data.documents import Wanted
from clm_core.errors import DataError, did_you_mean, shown_names

ALL, SELF = "*", "."
"""In a field, every member; and, alone, the value itself as one row."""

Object = dict[str, Any]


def rows_under(value: Any, field: str, place: Any) -> Iterable[Any]:
    """The rows in a field of a value: a dotted path, in which `*` is every member; `.` is the value itself.

    Raises:
        DataError: there is no such field, or no rows in it.
    """
    if field == SELF:
        return [value]
    return _rows_under(value, field, field, place)


def columns_to_rows(value: Object, *, least: int = 1) -> Iterator[Object] | None:
    """The rows of an object that has a table's columns, as lists or as pandas writes them; None if it has not.

    One of fewer than `least` rows counts as no table.
    """
    if _is_table(value, least):
        return (dict(zip(value, cells, strict=True)) for cells in zip(*value.values(), strict=True))
    if _is_indexed(value):
        keys = next(iter(value.values()))
        return ({name: cells[key] for name, cells in value.items()} for key in keys)
    return None


def check_not_several(value: Object, wanted: Wanted, place: Any) -> None:
    """Make sure that an object which is all of a file is one row, with one text in each column, or messages.

    Raises:
        DataError: it contains several rows, or a list of texts; with the options that choose among them.
    """
    for column, option in wanted.columns.items():
        found = _list_on_path(value, column) if wanted.are_texts else None
        if found is None and not has_column(value, column):
            _check_no_rows(value, place)
        if found is not None:
            _refuse_list(column, option, found, place)


def _check_no_rows(value: Object, place: Any) -> None:
    if inside := list(_collections(value)):
        names = shown_names(f"{name} ({shown_names(columns)})" for name, columns in inside)
        raise NoColumnError(
            f"{place} is one object with rows in it, under {names}: "
            f"choose them with --json-field {_quoted(inside[0][0])}"
        )


def _refuse_list(column: str, option: str, found: tuple[str, str, int], place: Any) -> None:
    field, rest, count = found
    way = f"{{{rest}}} in --text-template" if option == "text_template" else f"--{option.replace('_', '-')} {rest}"
    raise DataError(
        f"{place} is one object, and {column} leads to {with_noun(count, 'value')} in {field!r} of it: "
        f"--json-field {_quoted(field)} {way} makes each a document, "
        f"--json-field {SELF} all of them one document"
    )


def _rows_under(value: Any, names: str, field: str, place: Any) -> Iterator[Any]:
    first, _, rest = names.partition(".")
    if not names:
        yield from _as_rows(value, field, place)
    elif isinstance(value, dict) and names in value:  # A name may have dots in it.
        yield from _as_rows(value[names], field, place)
    elif first == ALL and isinstance(value, dict | list):
        for member in value.values() if isinstance(value, dict) else value:
            if rest or isinstance(member, list):
                yield from _rows_under(member, rest, field, place)
            else:
                yield member
    elif isinstance(value, dict) and first in value:
        yield from _rows_under(value[first], rest, field, place)
    else:
        there = f"its fields are {shown_names(value)}" if isinstance(value, dict) else f"it is {_described(value)}"
        raise DataError(f"{place}: json_field {field!r}: there is no {first!r}; {there}")


def _as_rows(value: Any, field: str, place: Any) -> Iterable[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        rows = columns_to_rows(value)
        if rows is not None:
            return rows
        if _is_keyed(value):
            raise DataError(
                f"{place}: json_field {field!r} is an object of {with_noun(len(value), 'object')}: "
                f"--json-field {_quoted(f'{field}.{ALL}')} makes each of them a row"
            )
        inside = [name for name, _ in _collections(value)]
        hint = did_you_mean(*(f"--json-field {field}.{name}" for name in inside[:1]))
        raise DataError(f"{place}: json_field {field!r} is an object with {shown_names(value)}, not rows{hint}")
    raise DataError(f"{place}: json_field {field!r} is {_described(value)}, not rows")


def _list_on_path(value: Object, column: str) -> tuple[str, str, int] | None:
    """The field of the list that the column leads through, the column in its rows, and how many there are."""
    if column in value:
        return _of_list(value, column, "", "")
    here: Any = value
    path, rest = "", column
    while isinstance(here, dict) and rest:
        name, _, rest = rest.partition(".")
        if found := _of_list(here, name, path, rest):
            return found
        here, path = here.get(name), f"{path}{name}."
    return None


def _of_list(parent: Object, name: str, path: str, rest: str) -> tuple[str, str, int] | None:
    cells = parent.get(name)
    if not isinstance(cells, list):
        return None
    if any(isinstance(cell, dict) for cell in cells):
        return f"{path}{name}", rest or "text", len(cells)
    if len(cells) < 2:
        return None
    if path and _is_table(parent, 2):
        return path.removesuffix("."), name, len(cells)
    return f"{path}{name}", "text", len(cells)


def _collections(value: Object, path: str = "") -> Iterator[tuple[str, Iterable[str]]]:
    """The fields that contain rows, with their columns."""
    if _is_keyed(value):
        yield f"{path}{ALL}", next(iter(value.values()))
        return
    for name, member in value.items():
        if isinstance(member, list) and member and isinstance(member[0], dict):
            yield f"{path}{name}", member[0]
        elif isinstance(member, dict) and _is_table(member, 2):
            yield f"{path}{name}", member
        elif isinstance(member, dict) and path.count(".") < 2:
            yield from _collections(member, f"{path}{name}.")


def _is_table(value: Object, least: int) -> bool:
    """Whether the members are the columns of a table: lists of one length, of more than objects."""
    columns = list(value.values())
    if not columns or not all(isinstance(cells, list) and len(cells) >= least for cells in columns):
        return False
    same = len({len(cells) for cells in columns}) == 1
    return same and any(not isinstance(cell, dict) for cells in columns for cell in cells[:1])


def _is_indexed(value: Object) -> bool:
    """Whether the members are the columns of a table as pandas writes it: objects whose keys are the same numbers."""
    columns = list(value.values())
    if not columns or not all(isinstance(cells, dict) and cells for cells in columns):
        return False
    return all(key.isdecimal() for key in columns[0]) and all(cells.keys() == columns[0].keys() for cells in columns)


def _is_keyed(value: Object) -> bool:
    """Whether the members are rows, each under its own key: objects that have a name in common."""
    members = list(value.values())
    if len(members) < 2 or not all(isinstance(member, dict) for member in members):
        return False
    return bool(set.intersection(*(set(member) for member in members)))


def _described(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"


def _quoted(field: str) -> str:
    return f"'{field}'" if ALL in field or " " in field else field
