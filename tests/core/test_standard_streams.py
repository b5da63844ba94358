"""What is read and printed is right in the encoding of any terminal."""

import io
import json
import os
import signal
import subprocess
import sys

import pytest

from clm_core.screen.standard_streams import escaped_output, print_json, read_input

SMALL = ("--max-train-samples", "20", "--max-eval-samples", "5")
HARD = 'é 日本 😀 \udc80 "quoted" \\ \n'


@pytest.fixture
def terminal(monkeypatch):
    """Put a terminal of some encoding in the place of standard output; what it was sent is in its buffer."""

    def install(encoding):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", write_through=True)
        monkeypatch.setattr(sys, "stdout", stream)
        return stream.buffer

    return install


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "shift_jis", "utf-8", "utf-16-le"])
def test_json_stays_json_that_says_the_same_in_any_encoding(terminal, encoding):
    buffer = terminal(encoding)
    with escaped_output():
        print_json(json.dumps({"text": HARD}, ensure_ascii=False))
    assert json.loads(buffer.getvalue().decode(encoding)) == {"text": HARD}


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "koi8-r"])
def test_json_is_ascii_where_the_terminal_is_not_utf8_which_json_has_to_be(terminal, encoding):
    buffer = terminal(encoding)
    print_json('{"text": "é"}')
    assert json.loads(buffer.getvalue()) == {"text": "é"}


def test_text_keeps_what_the_encoding_has_and_shows_the_rest_by_number(terminal):
    buffer = terminal("cp1252")
    with escaped_output():
        print("é 日 😀")
    assert buffer.getvalue().decode("cp1252") == "é \\u65e5 \\ud83d\\ude00\n"
    assert sys.stdout.errors == "strict"


@pytest.mark.parametrize(
    ("content", "encoding", "prompt"),
    [
        (b"the cat\r\n", "utf-8", "the cat"),
        (b"the cat\n", "utf-8", "the cat"),
        (b"the cat \n\n", "utf-8", "the cat \n"),
        (b"the cat\r\n\r\n", "utf-8", "the cat\r\n"),
        (b"one\r\ntwo\r", "utf-8", "one\r\ntwo\r"),
        ("日本\n".encode(), "ascii", "日本"),
        (b"caf\xe9\n", "cp1252", "café"),
        (b"caf\xe9\n", "utf-8", "caf\udce9"),
        (b"", "utf-8", ""),
    ],
)
def test_a_prompt_is_read_to_its_last_character_but_for_one_line_break(monkeypatch, content, encoding, prompt):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding=encoding))
    assert read_input() == prompt


def test_a_command_that_prints_what_the_terminal_cannot_show_ends_well(tmp_path):
    (tmp_path / "日本.txt").write_text("日本語のテキスト。" * 40, encoding="utf-8")
    argv = ("prepare", "--train-file", "日本.txt", "--tokenizer-name", "sample", "--validation-split-percentage", "0")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for command in ((*argv, "-o", "日本", "--block-size", "16"), ("inspect", "日本", "--json", "--block-size", "16")):
        command = [sys.executable, "-m", "clm_core", *command]
        done = subprocess.run(command, capture_output=True, env=environment, check=True, cwd=tmp_path)
    assert "日本" in json.loads(done.stdout)["block"]["pieces"][0]["text"]


@pytest.mark.parametrize(
    ("ignored", "steps", "code"),
    [(False, "100000", 129), (True, "300", 0)],  # More lines than a pipe holds: it cannot end before.
    ids=["usual", "under nohup"],
)
def test_a_training_whose_reader_is_gone_is_saved_or_goes_on(tmp_path, ignored, steps, code):
    at_once = "from clm_core.screen import progress; progress.PLAIN_INTERVAL = 0.0; from clm_core.__main__ import main"
    options = ["--output-dir", str(tmp_path / "run"), "--max-steps", steps, "--save-strategy", "no", *SMALL]
    process = subprocess.Popen(
        [sys.executable, "-c", f"{at_once}; raise SystemExit(main())", "--backend", "bigram", "train", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL),
    )
    assert any(line.startswith(b"training: 2 of") for line in process.stderr)
    process.stderr.close()
    assert process.wait(timeout=60) == code
    assert bool(list((tmp_path / "run").glob("checkpoint-*"))) is not ignored
