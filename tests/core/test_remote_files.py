"""Files behind URLs: the same documents as from here, and no credential of a URL in anything that is kept or shown."""

import base64
import gzip
import io
import json
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pyarrow
import pytest
from fsspec.registry import known_implementations
from pyarrow import parquet
from small_corpus import DOCUMENTS

import clm_core as clm
from clm_core.data.readers.files import Layout, expand, read
from clm_core.errors import DataError
from clm_core.redaction import without_credentials

TEXT = "".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS).encode()
TOKEN = "hunter2"


class Handler(SimpleHTTPRequestHandler):
    """A folder, with a door that wants a password and one that leads elsewhere; it knows of no ranges."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def send_head(self):
        wanted = "Basic " + base64.b64encode(f"jane:{TOKEN}".encode()).decode()
        if self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved"))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        if self.path.startswith("/cut/"):
            self.send_response(200)
            self.send_header("Content-Length", str(2 * len(TEXT)))
            self.send_header("Connection", "close")
            self.end_headers()
            return io.BytesIO(TEXT)
        if "locked" in self.path and self.headers["Authorization"] != wanted:
            self.send_error(401)
            return None
        return super().send_head()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of a server, and the folder that it serves."""
    folder = tmp_path_factory.mktemp("served")
    for name in ("a.jsonl", "locked.jsonl"):
        (folder / name).write_bytes(TEXT)
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(TEXT))
    (folder / "a.jsonl.zst").write_bytes(pyarrow.compress(TEXT, codec="zstd", asbytes=True))
    parquet.write_table(pyarrow.table({"text": DOCUMENTS}), folder / "a.parquet")
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Handler(*args, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()


def documents(*patterns):
    return [text for file in expand("train_file", patterns) for text in read(file, Layout())]


@pytest.mark.parametrize(
    "path",
    ["a.jsonl", "a.jsonl?download=true", "moved/a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet", "*.jsonl.gz"],
)
def test_a_file_behind_a_url_gives_what_the_same_file_gives_here(served, path):
    assert documents(f"{served[0]}/{path}") == DOCUMENTS


def test_any_file_system_of_fsspec_is_read(served):
    system = fsspec.filesystem("memory")
    for name in ("one.jsonl", "two.jsonl"):
        system.pipe(f"/clm/{name}", TEXT)
    assert documents("MEMORY://clm/one.jsonl") == DOCUMENTS
    assert documents("memory://clm/*.jsonl") == [*DOCUMENTS, *DOCUMENTS]
    assert documents(f"file://{served[1]}/a.jsonl") == DOCUMENTS


def test_data_are_known_by_their_content_wherever_they_lie(served, corpus):
    given = {"tokenizer_name": "sample", "block_size": 16}
    corpus.write_bytes(TEXT)
    assert not clm.prepare(train_file=corpus, **given).reused
    assert clm.prepare(train_file=f"{served[0]}/a.jsonl", **given).reused


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("{}/gone.jsonl", "gone.jsonl: 404"),
        ("{}/locked.jsonl", "locked.jsonl: 401"),
        ("{}/gone-*.jsonl", "there is no file {}/gone-*.jsonl"),
        ("{}/", "{}/ has no known extension"),
        ("http://127.0.0.1:9/a.jsonl", "cannot read http://127.0.0.1:9/a.jsonl: "),
        ("memory://nothing.jsonl", "memory://nothing.jsonl: there is no such file"),
        ("ftp://127.0.0.1:9/a.jsonl", "cannot read ftp://127.0.0.1:9/a.jsonl: "),
        ("{}/cut/a.jsonl", "a.jsonl: Response payload is not completed"),
        ("nonsense://a.jsonl", "Protocol not known: nonsense"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused(served, url, message):
    with pytest.raises(DataError) as error:
        documents(url.format(served[0]))
    assert message.format(served[0]) in str(error.value)


def test_a_file_system_that_is_not_installed_is_named_with_its_pip_line(monkeypatch):
    monkeypatch.setitem(known_implementations["s3"], "class", "s3fs.NotThere")
    with pytest.raises(DataError, match=rf'Install s3fs .*: pip install "s3fs=={fsspec.__version__}"'):
        expand("train_file", ["s3://bucket/a.jsonl"])


def test_credentials_in_a_url_open_the_door_and_are_kept_nowhere(served, train, tmp_path, capsys):
    url = served[0].replace("http://", f"http://jane:{TOKEN}@")
    run = train(train_file=f"{url}/locked.jsonl?token={TOKEN}", output_dir="run", progress=clm.terminal_progress())
    assert run.steps
    shown = capsys.readouterr()
    assert TOKEN not in shown.out + shown.err + run.to_json() + repr(run)
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in kept if TOKEN.encode() in path.read_bytes() or TOKEN in path.name] == []
    assert f"{served[0]}/locked.jsonl?token=..." in (tmp_path / "run" / "run.yaml").read_text()


def test_credentials_are_in_no_error(served):
    url = served[0].replace("http://", f"http://jane:{TOKEN}@")
    for path in ("gone.jsonl", "a.docx", "gone-*.jsonl", f"a.pdf?sig={TOKEN}"):
        with pytest.raises(DataError) as error:
            documents(f"{url}/{path}")
        assert TOKEN not in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see https://jane:pw@host/a?x=1", "see https://host/a?x=1"),
        ("https://host/a?X-Amz-Signature=abc&id=5", "https://host/a?X-Amz-Signature=...&id=5"),
        ("hf://datasets/jane/data@main/a.jsonl", "hf://datasets/jane/data@main/a.jsonl"),
        ("zip://a.csv::https://jane@host/b.zip", "zip://a.csv::https://host/b.zip"),
        ("mail jane@host about token=5", "mail jane@host about token=5"),
    ],
)
def test_what_is_taken_out_of_a_url(text, expected):
    assert without_credentials(text) == expected
