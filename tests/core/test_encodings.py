"""Text of files in any encoding, with any line breaks, and CSV with any delimiter."""

import codecs
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_core.data.readers import lines
from clm_core.data.readers.files import Layout, expand, read
from clm_core.errors import DataError

MARKED = {
    "utf-8-sig": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}
CONTENT = {
    "a.txt": "é日本\r\n🙂",
    "a.csv": 'id,text\r\n1,"é日本\r\n🙂"\r\n',
    "a.jsonl": json.dumps({"text": "é日本\r\n🙂"}, ensure_ascii=False) + "\r\n",
}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


@pytest.mark.parametrize("name", CONTENT)
@pytest.mark.parametrize("encoding", MARKED)
def test_a_byte_order_mark_says_the_encoding(tmp_path, name, encoding):
    bare = encoding.removesuffix("-sig")
    (tmp_path / name).write_bytes(MARKED[encoding] + CONTENT[name].encode(bare))
    for given_encoding in (None, "cp1252"):
        layout = Layout("text", "document", encoding=given_encoding)
        assert list(read(tmp_path / name, layout)) == ["é日本\r\n🙂"]


@pytest.mark.parametrize(("encoding", "text"), [("cp1252", "„é“ €"), ("shift_jis", "日本語"), ("utf-16-be", "é日本")])
@pytest.mark.parametrize("name", ["a.txt", "a.csv"])
def test_encoding_says_it_where_there_is_no_mark(tmp_path, encoding, text, name):
    content = text if name == "a.txt" else f"text\n{text}\n"
    (tmp_path / name).write_bytes(content.encode(encoding))
    assert list(read(tmp_path / name, Layout("text", "line", encoding=encoding))) == [text]
    with pytest.raises(DataError, match="not UTF-8"):
        list(read(tmp_path / name, Layout("text", "line")))


def test_a_byte_order_has_to_be_said_where_there_is_no_mark(tmp_path):
    (tmp_path / "a.txt").write_bytes("hello".encode("utf-16-le"))
    with pytest.raises(DataError, match="no byte order mark: give --encoding utf-16-le, or utf-16-be"):
        list(read(tmp_path / "a.txt", Layout(encoding="utf-16")))


@pytest.mark.parametrize("size", [4, 5, 7, 2**18])
@given(text=st.text(st.sampled_from("aé日🙂\n\r"), min_size=1), encoding=st.sampled_from(["utf-8", "utf-16-le"]))
@settings(max_examples=50)
def test_lines_are_the_same_whatever_is_decoded_at_a_time(scratch, size, text, encoding):
    (scratch / "a.txt").write_bytes(MARKED.get(encoding, b"") + text.encode(encoding))
    usual, lines.CHUNK = lines.CHUNK, size
    try:
        universal = list(lines.read_lines(scratch / "a.txt", universal=True))
        found = list(lines.read_lines(scratch / "a.txt"))
    finally:
        lines.CHUNK = usual
    assert universal == text.splitlines(keepends=True)
    assert "".join(found) == text


def test_the_place_of_a_wrong_byte_is_found_in_any_chunk(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\nthr\xe9e\n")
    for size in (4, 5, 2**18):
        monkeypatch.setattr(lines, "CHUNK", size)
        found = []
        with pytest.raises(DataError, match=r"a\.txt, line 3: not UTF-8: byte 0xe9 at 11;"):
            found.extend(read(tmp_path / "a.txt", Layout("text", "line")))


@pytest.mark.parametrize("content", ["a\r\rb\r", "a\n\nb\n", "a\r\n\r\nb\r\n"])
def test_a_paragraph_ends_at_a_blank_line_of_any_kind(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content.encode())
    assert [text.strip() for text in read(tmp_path / "a.txt", Layout())] == ["a", "b"]


def test_zero_bytes_within_a_text_stay(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a text with \0 in it")
    assert list(read(tmp_path / "a.txt", Layout())) == ["a text with \0 in it"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "id;text\n1;a, b\n"),
        ("a.csv", "id\ttext\n1\ta, b\n"),
        ("a.csv", "id|text\n1|a, b\n"),
        ("a.csv", "a,b;text\n1;a, b\n"),
        ("a.csv", 'id,text\r1,"a, b"\r'),
        ("a.csv", 'id,"my;name",text\n1,2,"a, b"\n'),
        ("a.csv", "sep=;\r\nid;text\r\n1;a, b\r\n"),
        ("a.tsv", "text\ttext, too\na, b\tc\n"),
        ("a.csv", ',,text\n1,2,"a, b"\n'),
    ],
)
def test_the_delimiter_is_found_in_the_header(tmp_path, name, content):
    (tmp_path / name).write_bytes(content.encode())
    assert list(read(tmp_path / name, Layout())) == ["a, b"]


@pytest.mark.parametrize(("given_delimiter", "delimiter"), [("tab", "\t"), ("\t", "\t"), ("~", "~"), (",", ",")])
def test_csv_delimiter_says_it(tmp_path, given_delimiter, delimiter):
    (tmp_path / "a.csv").write_text(f"id;x{delimiter}text\n1{delimiter}a; b\n")
    assert list(read(tmp_path / "a.csv", Layout(csv_delimiter=given_delimiter))) == ["a; b"]


def test_a_text_with_the_delimiter_in_it_is_not_cut(tmp_path):
    (tmp_path / "a.csv").write_text("id,text\n1,a, b\n")
    with pytest.raises(DataError, match=r"line 2: .* 3 fields, but the header has 2, separated by ','"):
        list(read(tmp_path / "a.csv", Layout()))


def test_what_cannot_be_read_twice_or_has_no_end_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    for name, what in (("pipe.jsonl", "pipe"), ("zero.txt", "device")):
        with pytest.raises(DataError, match=f"{name} is a {what}, not a file: .*write it to a file first"):
            expand("train_file", [str(tmp_path / name)])
