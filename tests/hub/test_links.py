"""Links in a folder that is published lead nowhere: they are named, and nothing is read or written through them."""

from pathlib import Path

import pytest

from clm_core.backend import Saved
from clm_core.hub import run_files
from clm_core.hub.publishing import _State

CHECKPOINT = ["--save-strategy", "steps", "--save-steps", "6", "--hub-strategy", "checkpoint"]
KEY = "a key of this machine"


@pytest.fixture
def secret(tmp_path):
    """A file outside of the run, which must neither leave this machine nor change."""
    file = tmp_path / "id_ed25519"
    file.write_text(KEY)
    yield file
    assert file.read_text() == KEY


@pytest.mark.parametrize("name", ["README.md", "merges.txt", "model-2.safetensors", "checkpoint-18/notes.txt"])
def test_a_link_is_left_out_and_named_and_what_the_repository_has_stays(clm, hub, training, tmp_path, secret, name):
    assert clm(*training, *CHECKPOINT) == 0
    path = name.replace("checkpoint-18", "last-checkpoint")
    repo = hub.repos["models", "jane/run"]
    repo.commit("main", {**repo.commits[repo.branches["main"]], path: b"as it was"}, "by hand")
    (tmp_path / "run" / name).unlink(missing_ok=True)
    (tmp_path / "run" / name).symlink_to(secret)
    assert clm("push", "run") == 0
    assert hub.files("jane/run")[path] == b"as it was"
    assert f"left out, because links are not uploaded: run/{name}" in clm.err


def test_of_a_checkpoint_that_is_a_link_no_file_is_uploaded(clm, hub, training, tmp_path):
    assert clm(*training, "--save-strategy", "steps", "--save-steps", "6", "--hub-offline") == 0
    run = tmp_path / "run"
    (run / "run.yaml").write_text((run / "run.yaml").read_text() + "hub_strategy: checkpoint\n")
    (run / "checkpoint-18").rename(tmp_path / "elsewhere")
    (run / "checkpoint-18").symlink_to(tmp_path / "elsewhere")
    assert clm("push", "run") == 0
    assert [path for path in hub.files("jane/run") if "/" in path] == []
    assert "left out, because links are not uploaded: run/checkpoint-18" in clm.err


@pytest.mark.parametrize("name", ["results.json", "run.yaml"])
def test_a_record_that_is_a_link_stops_the_upload(clm, hub, training, tmp_path, name):
    assert clm(*training, "--hub-offline") == 0
    (tmp_path / "run" / name).rename(tmp_path / name)
    (tmp_path / "run" / name).symlink_to(tmp_path / name)
    assert clm("push", "run") == 2
    assert hub.requests == []
    assert f"run/{name} is a link, and links are not uploaded" in clm.err


def test_the_card_and_the_curve_are_not_written_through_links(clm, hub, training, tmp_path, secret):
    assert clm(*training, "--hub-offline") == 0
    (tmp_path / "run" / "losses.png").symlink_to(secret)
    (tmp_path / "run" / "README.md").symlink_to(tmp_path / "new")
    assert clm("push", "run", "--hub-license", "mit") == 3
    assert "README.md is a link" in clm.out
    (tmp_path / "run" / "README.md").unlink()
    assert clm("push", "run") == 0
    assert hub.files("jane/run")["losses.png"].startswith(b"\x89PNG")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["train.bin", "manifest.json"])
def test_data_with_a_link_in_it_is_not_published(clm, hub, training, tmp_path, name):
    prepare = ["prepare", "--train-file", "corpus.jsonl", "--tokenizer-name", "sample", "--output-dir", "fox"]
    assert clm(*prepare, "--validation-split-percentage", "0") == 0
    (tmp_path / "fox" / name).rename(tmp_path / name)
    (tmp_path / "fox" / name).symlink_to(tmp_path / name)
    assert clm("push", "fox") == 3
    assert hub.requests == []
    assert f"fox/{name} is a link" in clm.out


def test_a_checkpoint_with_a_link_is_uploaded_during_the_training_without_it(tmp_path, secret):
    checkpoint = tmp_path / "run" / "checkpoint-6"
    checkpoint.mkdir(parents=True)
    (checkpoint / "config.json").write_text("{}")
    (checkpoint / "merges.txt").symlink_to(secret)
    for name in ("run.yaml", "history.jsonl"):
        (tmp_path / "run" / name).write_text("")
    state = _State.of(Saved(step=6, path=checkpoint), tmp_path / "run")
    files = run_files.of_checkpoint(state.folder, with_state=True)
    linked = {path for path, source in files.items() if isinstance(source, Path) and source.is_symlink()}
    assert linked == {"merges.txt", "last-checkpoint/merges.txt"}


def test_results_cannot_name_a_checkpoint_outside_of_the_run(tmp_path):
    for folder in ("run", "other"):
        (tmp_path / folder).mkdir()
    (tmp_path / "id_ed25519").write_text(KEY)
    files = run_files.of_run(tmp_path / "run", {"checkpoint": "/x/.."}, {"hub_strategy": "checkpoint"})
    assert sorted(files) == ["results.json", "run.yaml"]
