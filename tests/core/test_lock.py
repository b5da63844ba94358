"""What lies in the place of a run's lock is named, stays where it is, and keeps a command from the run."""

import os
from pathlib import Path

import pytest

from clm_core.durable.lock import BlockedError, locked
from clm_core.errors import OutputError


def hard_link(path):
    other = path.parents[1] / "other"
    other.write_text("mine")
    path.hardlink_to(other)


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (Path.mkdir, "is a folder"),
        (lambda path: path.symlink_to("run.yaml"), "is a link"),
        (hard_link, "is a hard link"),
        (os.mkfifo, "is no file of text or data"),
    ],
)
def test_what_cannot_be_locked_is_named_with_the_way_out(train, tmp_path, make, what, is_there):
    if is_there:
        train(output_dir="run", max_steps=1)
    (tmp_path / "run").mkdir(exist_ok=True)
    make(tmp_path / "run" / ".lock")
    said = rf"^output_dir run cannot be locked: run/\.lock {what}: .* remove it, or choose another folder"
    with pytest.raises(OutputError, match=said):
        train(output_dir="run", max_steps=2, resume_from_checkpoint="auto")
    assert os.path.lexists(tmp_path / "run" / ".lock")


def test_a_lock_of_somebody_else_is_named(tmp_path, monkeypatch):
    (tmp_path / ".lock").touch()
    monkeypatch.setattr(os, "access", lambda *asked: False)
    with pytest.raises(BlockedError, match=r"\.lock may not be written by you"), locked(tmp_path):
        pass
