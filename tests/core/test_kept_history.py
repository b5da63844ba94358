"""A run that is resumed says which lines of its history it drops, and why, and has the whole history at its end."""

import pytest
from clm_bigram import Bigrams
from support.folders import history
from support.heard import Heard

OPTIONS = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "logging_steps": 1, "eval_strategy": "no"}


@pytest.fixture
def resumed(train, monkeypatch, tmp_path):
    """Change the history of a run that an exception ended in its sixth step, and resume it; returns what was said."""

    def run(change):
        add, steps = Bigrams.add, iter(range(5))
        monkeypatch.setattr(Bigrams, "add", lambda self, it: 1 / 0 if next(steps, None) is None else add(self, it))
        with pytest.raises(ZeroDivisionError):
            train(**OPTIONS, output_dir="run")
        monkeypatch.setattr(Bigrams, "add", add)
        file, heard = tmp_path / "run" / "history.jsonl", Heard()
        file.write_bytes(change(file.read_bytes()))
        train(**OPTIONS, output_dir="run", resume_from_checkpoint="auto", progress=heard)
        train(**OPTIONS, output_dir="whole")
        assert history(tmp_path / "run") == history(tmp_path / "whole")
        return [line for line in heard.lines if "history.jsonl" in line]

    return run


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text, []),
        (lambda text: text[:-2], ["line {last} was cut off, and is dropped: '{{"]),
        (lambda text: text + b"?\n", ["line {next} is no entry of a history, and is dropped: '?'"]),
        (lambda text: text + b"?\n[1]\n{}\n", ["line {next} is no entry", "line {after} is no entry of a history"]),
        (lambda text: text.replace(b"{", b"?", 1), ["run/history.jsonl is damaged: restored from checkpoint-4"]),
    ],
)
def test_a_line_that_is_dropped_is_said(resumed, tmp_path, change, said):
    lines = resumed(change)
    assert len(lines) == len(said)
    for line, expected in zip(lines, said, strict=True):
        assert expected.format(last=5, next=6, after=7) in line
