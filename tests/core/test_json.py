"""Rows of JSON: an object with all rows in it is never one document, whatever way it has of holding them."""

import json

import pytest

from clm_core.data.readers.files import Layout, read
from clm_core.errors import DataError

ROWS = [{"id": number, "output": text} for number, text in enumerate(["a", "b", "c"])]
TEXTS = ["a", "b", "c"]
TABLE = {"id": [0, 1, 2], "output": TEXTS}
KEYED = {f"id{row['id']}": row for row in ROWS}


@pytest.fixture
def documents(tmp_path):
    def read_all(content, column="output", **options):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "a.json").write_text(text, encoding="utf-8")
        return list(read(tmp_path / "a.json", Layout(column, **options)))

    return read_all


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"data": ROWS}, "data"),
        ({"version": "1", "rows": ROWS}, "rows"),
        ({"result": {"rows": ROWS}, "count": 3}, "result.rows"),
        ({"a.b": ROWS}, "a.b"),
        ({"data": TABLE}, "data"),
        ({"data": KEYED}, "data.*"),
        (KEYED, "*"),
        ({"train": ROWS[:2], "more": ROWS[2:]}, "*"),
        ([{"page": ROWS[:2]}, {"page": ROWS[2:]}], "*.page"),
        ({"title": "x", "texts": TEXTS}, "texts"),
    ],
    ids=lambda value: json.dumps(value)[:30],
)
def test_json_field_says_where_the_rows_are(documents, value, field):
    column = "text" if field == "texts" else "output"
    assert documents(value, column, json_field=field) == TEXTS


@pytest.mark.parametrize(
    ("value", "column", "proposed"),
    [
        ({"data": ROWS}, "output", "data"),
        ({"data": ROWS}, "data.output", "data"),
        ({"result": {"rows": ROWS}}, "result.rows.output", "result.rows"),
        ({"train": ROWS, "test": ROWS}, "output", "train"),
        ({"train": ROWS, "test": ROWS}, "train.output", "train"),
        ({"version": "1", "data": TABLE}, "data.output", "data"),
        ({"version": "1", "data": TABLE}, "output", "data"),
        (KEYED, "output", "'*'"),
        ({"data": KEYED, "n": 3}, "output", "'data.*'"),
        ({"title": "x", "texts": TEXTS}, "texts", "texts"),
    ],
    ids=lambda value: json.dumps(value)[:30],
)
def test_an_object_with_rows_in_it_is_refused_with_the_way_to_say_it(documents, value, column, proposed):
    with pytest.raises(DataError, match=r"is one object") as error:
        documents(value, column)
    assert f"--json-field {proposed}" in str(error.value)
    assert f"did you mean --text-column {column}" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "value",
    [TABLE, {"id": {"0": 0, "1": 1, "2": 2}, "output": {"0": "a", "1": "b", "2": "c"}}],
    ids=["lists", "as pandas writes it"],
)
def test_an_object_with_the_columns_of_a_table_is_read_as_its_rows(documents, value):
    assert documents(value) == TEXTS
    with pytest.raises(DataError, match=r"has no column 'outpt'; its columns are id, output; did you mean .* output"):
        documents(value, "outpt")


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(json.dumps(row, indent=2) for row in ROWS),
        "".join(map(json.dumps, ROWS)),
        json.dumps(ROWS) + "\n",
        json.dumps(ROWS[:1]) + "\n" + json.dumps(ROWS[1:]),
        "\r".join(map(json.dumps, ROWS)),
    ],
    ids=["spread over lines", "on one line", "an array", "two arrays", "ended by carriage returns"],
)
def test_values_that_stand_one_after_another_are_all_read(documents, text):
    assert documents(text) == TEXTS


def test_strings_are_rows_of_their_own(documents):
    assert documents(TEXTS, "text") == documents("\n".join(map(json.dumps, TEXTS)), "text") == TEXTS
    with pytest.raises(DataError, match="its columns are text"):
        documents(TEXTS, "output")


def test_one_object_is_one_row_where_nothing_says_otherwise(documents):
    assert documents({"output": "a", "tags": ["x", "y"]}) == ["a"]
    assert documents({"answers": {"text": ["one answer"], "score": [1]}}, "answers.text") == ["one answer"]
    assert documents({"title": "x", "texts": TEXTS}, "texts", json_field=".") == ["a b c"]


def test_an_object_on_each_line_may_hold_lists_of_objects(documents):
    lines = [{"answers": ROWS[:2]}, {"answers": ROWS[2:]}]
    assert documents("\n".join(map(json.dumps, lines)), "answers.output") == ["a b", "c"]
    assert documents("\n".join(map(json.dumps, lines)), json_field="answers") == TEXTS


@pytest.mark.parametrize(
    ("value", "field", "message"),
    [
        ({"data": ROWS}, "rows", "there is no 'rows'; its fields are data"),
        ({"data": {"rows": ROWS}}, "data", "not rows; did you mean --json-field data.rows?"),
        ({"data": KEYED}, "data", "--json-field 'data.*' makes each of them a row"),
        ({"data": "a"}, "data", "json_field 'data' is str 'a', not rows"),
        ({"data": ROWS}, "data.rows", "there is no 'rows'; it is list"),
    ],
)
def test_a_field_without_rows_is_refused(documents, value, field, message):
    with pytest.raises(DataError) as error:
        documents(value, json_field=field)
    assert message in str(error.value)


def test_a_name_twice_matters_only_where_it_is_the_columns(documents):
    assert documents('{"id": 1, "id": 2, "output": "a"}\n{"output": "b"}') == ["a", "b"]
