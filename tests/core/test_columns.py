"""The text of a row: the same from JSON, from Parquet and from a data set, nested or not."""

import json

import pyarrow
import pytest
from pyarrow import parquet

from clm_core.data.readers.files import Layout, read
from clm_core.errors import DataError

ANSWERS = {
    "a struct of lists": [{"text": ["one", "two"], "score": [1, 2]}, {"text": ["three"], "score": [3]}, None],
    "a list of structs": [[{"text": "one"}, {"text": "two"}], [{"text": "three"}], None],
}


def from_json(tmp_path, rows, column):
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return list(read(tmp_path / "a.jsonl", Layout(column, "line")))


def from_parquet(tmp_path, rows, column):
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    return list(read(tmp_path / "a.parquet", Layout(column, "line")))


both = pytest.mark.parametrize("texts", [from_json, from_parquet])


@both
@pytest.mark.parametrize("kind", ANSWERS)
def test_the_strings_under_a_dotted_path_are_joined_by_one_space(texts, kind, tmp_path):
    rows = [{"answers": answers} for answers in ANSWERS[kind]]
    result = texts(tmp_path, rows, "answers.text")
    assert result[:2] == ["one two", "three"]
    assert not result[2]


@both
def test_a_column_may_have_a_dot_in_its_name(texts, tmp_path):
    assert texts(tmp_path, [{"a.b": "flat", "a": {"c": "nested"}}], "a.b") == ["flat"]
    assert texts(tmp_path, [{"a.b": "flat", "a": {"c": "nested"}}], "a.c") == ["nested"]


@both
def test_a_path_may_go_through_several_structs(texts, tmp_path):
    assert texts(tmp_path, [{"a": {"b": {"c": "deep"}}}, {"a": None}], "a.b.c") == ["deep", None]


@both
def test_what_a_list_lacks_is_left_out(texts, tmp_path):
    assert texts(tmp_path, [{"text": ["one", None, "two"]}, {"text": []}], "text") == ["one two", ""]


@pytest.mark.parametrize(
    "column",
    [
        pyarrow.array(["one two"], pyarrow.large_string()),
        pyarrow.array([["one", "two"]], pyarrow.list_(pyarrow.large_string())),
        pyarrow.array([["one", "two"]], pyarrow.large_list(pyarrow.string())),
        pyarrow.array(["one two"]).dictionary_encode(),
        pyarrow.array([["one", "two"]], pyarrow.list_(pyarrow.string(), 2)),
        pyarrow.array([b"one two"]),
        pyarrow.array([["one", "two"]], pyarrow.list_(pyarrow.large_binary())),
    ],
    ids=lambda column: str(column.type),
)
def test_every_way_in_which_arrow_has_strings_is_read(column, tmp_path):
    parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    assert list(read(tmp_path / "a.parquet", Layout("text", "line"))) == ["one two"]


TURN = pyarrow.struct([("role", pyarrow.string()), ("text", pyarrow.string())])
of_26 = pytest.mark.skipif(
    int(pyarrow.__version__.split(".")[0]) < 26, reason="this pyarrow does not read a missing list of a fixed size"
)
TURNS = [{"role": "a", "text": "one"}, {"role": "b", "text": "two"}]


@pytest.mark.parametrize(
    ("column", "path"),
    [
        pytest.param(pyarrow.array([TURNS, None], pyarrow.list_(TURN, 2)), "a.text", marks=of_26),
        (pyarrow.array([TURNS, None], pyarrow.large_list(TURN)), "a.text"),
        pytest.param(
            pyarrow.array([{"b": TURNS}, None], pyarrow.struct([("b", pyarrow.list_(TURN, 2))])),
            "a.b.text",
            marks=of_26,
        ),
        (pyarrow.array([{"b": b"one two"}, None]), "a.b"),
        (
            pyarrow.array(
                [[("en", "one two"), ("de", "eins")], None], pyarrow.map_(pyarrow.string(), pyarrow.string())
            ),
            "a.en",
        ),
        (pyarrow.array([[("en", TURNS)], None], pyarrow.map_(pyarrow.string(), pyarrow.list_(TURN))), "a.en.text"),
    ],
    ids=lambda value: str(getattr(value, "type", value)),
)
def test_a_path_leads_through_every_kind_of_nested_column(column, path, tmp_path):
    parquet.write_table(pyarrow.table({"a": column}), tmp_path / "a.parquet")
    assert list(read(tmp_path / "a.parquet", Layout(path))) == ["one two", None]


def test_two_columns_of_one_name_are_refused(tmp_path):
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="has 2 columns called 'text': rename one of them"):
        list(read(tmp_path / "a.parquet", Layout()))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    parquet.write_table(pyarrow.table({"text": [b"\x89PNG"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"column 'text' contains bytes b'.x89PNG', which are not UTF-8 text"):
        list(read(tmp_path / "a.parquet", Layout()))


@both
def test_a_missing_column_is_reported_with_all_there_are_and_the_likely_one(texts, tmp_path):
    with pytest.raises(DataError) as error:
        texts(tmp_path, [{"id": 1, "answers": {"score": [1], "text": ["a"]}}], "text")
    assert "no column 'text'; its columns are id, answers, answers.score, answers.text" in str(error.value)
    assert "did you mean --text-column answers.text?" in str(error.value)


@both
@pytest.mark.parametrize("value", [5, {"a": "b"}, [["a"]]])
def test_what_is_not_text_is_refused_and_never_turned_into_text(texts, value, tmp_path):
    with pytest.raises(DataError, match=r"column 'text' contains \w+ .*, not text"):
        texts(tmp_path, [{"text": value}], "text")
