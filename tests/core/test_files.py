"""Local files: every kind gives the same documents, to the last byte."""

import csv
import gzip
import json

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from clm_core.data.readers.files import Layout, expand, read
from clm_core.errors import DataError

ROWS = ['A "quoted", text', "two\nlines\r\n\nand ünïcode 🙂", " spaces ", "last"]
TEXT = Layout(text_column="text", sample_by="line")
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff")


def write_json(path, rows):
    path.write_text(json.dumps([{"text": text} for text in rows], indent=1), encoding="utf-8")


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows), encoding="utf-8")


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "text"], *enumerate(rows)])


def write_parquet(path, rows):
    parquet.write_table(pyarrow.table({"text": rows}), path)


WRITERS = {".json": write_json, ".jsonl": write_jsonl, ".csv": write_csv, ".parquet": write_parquet}


def zipped(path):
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    return packed


def documents(*patterns, layout=TEXT):
    return [text for path in expand("train_file", map(str, patterns)) for text in read(path, layout)]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_file_gives_the_same_documents_plain_and_zipped(kind, tmp_path):
    path = tmp_path / f"my.data.v1{kind}"
    WRITERS[kind](path, ROWS)
    assert documents(path) == ROWS
    assert documents(zipped(path)) == ROWS


@pytest.mark.parametrize("name", ["UPPER.TXT", "a.b.c.txt", "notes.gz.txt", "v1.5 report.txt"])
def test_the_end_of_a_name_says_what_a_file_is(name, tmp_path):
    (tmp_path / name).write_text("one\n")
    assert documents(tmp_path / name) == ["one\n"]
    packed = zipped(tmp_path / name)
    assert documents(packed.rename(packed.with_suffix(".GZ"))) == ["one\n"]


def test_many_files_and_a_glob_are_read_in_order(tmp_path):
    for number, text in enumerate(ROWS):
        write_jsonl(tmp_path / f"part-{number}.jsonl", [text])
    parts = [tmp_path / f"part-{number}.jsonl" for number in range(len(ROWS))]
    assert documents(*parts) == documents(tmp_path / "part-*.jsonl") == ROWS
    assert documents(*reversed(parts)) == ROWS[::-1]


def test_a_file_whose_name_looks_like_a_glob_is_read(tmp_path):
    write_jsonl(tmp_path / "data[1].jsonl", ROWS)
    assert documents(tmp_path / "data[1].jsonl") == ROWS


@pytest.mark.parametrize("sample_by", ["line", "paragraph", "document"])
@given(text=st.text(CHARACTERS | st.sampled_from(" \n\r"), min_size=1))
@settings(max_examples=60)
def test_the_documents_of_a_text_file_are_the_file(scratch, sample_by, text):
    (scratch / "a.txt").write_bytes(text.encode())
    assert "".join(documents(scratch / "a.txt", layout=Layout("text", sample_by))) == text


@pytest.mark.parametrize(
    ("sample_by", "expected"),
    [
        ("line", ["a\n", "b\n", "\n", " \n", "c"]),
        ("paragraph", ["a\nb\n\n \n", "c"]),
        ("document", ["a\nb\n\n \nc"]),
    ],
)
def test_a_document_of_a_text_file_is_what_sample_by_says(sample_by, expected, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a\nb\n\n \nc")
    assert documents(tmp_path / "a.txt", layout=Layout("text", sample_by)) == expected


@pytest.mark.parametrize("kind", [".json", ".jsonl", ".csv"])
@given(rows=st.lists(st.text(CHARACTERS, min_size=1), min_size=1, max_size=5))
@settings(max_examples=60)
def test_any_text_comes_out_of_a_file_as_it_went_in(scratch, kind, rows):
    WRITERS[kind](scratch / f"any{kind}", rows)
    assert documents(scratch / f"any{kind}") == rows


@pytest.mark.parametrize(
    ("kind", "content"),
    [(".csv", "text,id\none,1\n"), (".json", '[{"text": "one"}]'), (".jsonl", '{"text": "one"}'), (".txt", "one")],
)
def test_a_byte_order_mark_is_no_part_of_the_first_document_or_column(kind, content, tmp_path):
    (tmp_path / f"mark{kind}").write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert documents(tmp_path / f"mark{kind}") == ["one"]


@pytest.mark.parametrize(
    "content",
    [
        '{\n  "text": "one"\n}\n',
        '\n\n[\n{"text": "one"}\n]',
        '[{"text": "one"}]',
        '\r\n{"text": "one"}\r\n\r\n',
        '{"text": "one"}',
    ],
)
def test_json_may_be_spread_over_lines_or_have_blank_ones(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content.encode())
    assert documents(tmp_path / "a.json") == ["one"]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_document_may_be_larger_than_any_buffer(kind, tmp_path):
    rows = ["word " * 300_000, "short"]
    WRITERS[kind](tmp_path / f"long{kind}", rows)
    assert documents(tmp_path / f"long{kind}") == rows


def test_rows_without_the_text_come_out_as_none(tmp_path):
    rows = [{"text": "a"}, {"text": None}, {"other": 1}, {"text": ""}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert documents(tmp_path / "a.jsonl") == ["a", None, None, ""]


def test_a_column_that_begins_late_is_found_all_the_same(tmp_path):
    rows = [{"id": 1}] * 900 + [{"id": 2, "text": "late"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert documents(tmp_path / "a.jsonl") == [None] * 900 + ["late"]


def test_reading_stops_where_the_reader_stops(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    with (tmp_path / "a.jsonl").open("ab") as file:
        file.write(b"{broken\n")
    rows = read(tmp_path / "a.jsonl", TEXT)
    assert [next(rows) for _ in ROWS] == ROWS
    with pytest.raises(DataError, match="line 5"):
        next(rows)
