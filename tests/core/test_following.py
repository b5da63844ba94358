"""A run that begins from a checkpoint of another one, and a process that a launcher starts again."""

import os
import shutil
import time

import pytest
from support.folders import history, names

import clm_core as clm
from clm_core import cli
from clm_core.backend import World
from clm_core.commands import train as train_command
from clm_core.errors import ModelError, OutputError, StoppedError
from clm_core.launch import mailbox
from clm_core.runs import leftovers, output


@pytest.mark.parametrize("named", ["auto", "new"])
def test_a_run_that_began_from_another_one_begins_there_again_until_it_has_a_checkpoint(
    train, interrupted, killed_in_another_folder, tmp_path, named
):
    whole = clm.train(
        backend="bigram", resume_from_checkpoint=interrupted, output_dir=tmp_path / "whole", logging_steps=9
    )
    more = {"output_dir": killed_in_another_folder, "num_train_epochs": 3, "logging_steps": 9}
    if named == "auto":
        found = train(**more, resume_from_checkpoint="auto")
    else:
        found = clm.train(backend="bigram", resume_from_checkpoint=killed_in_another_folder)
    assert (found.output_dir, found.steps, found.after) == (killed_in_another_folder, whole.steps, whole.after)
    assert history(killed_in_another_folder) == history(whole.output_dir)
    assert "resume_from_checkpoint" in (killed_in_another_folder / "run.yaml").read_text()


def test_it_begins_there_again_if_its_own_checkpoints_are_damaged(interrupted, killed_in_another_folder, tmp_path):
    options = {"backend": "bigram", "save_strategy": "steps", "save_steps": 5}
    whole = clm.train(**options, resume_from_checkpoint=interrupted, output_dir=tmp_path / "whole")
    new = killed_in_another_folder
    shutil.copytree(tmp_path / "whole" / "checkpoint-50", new / "checkpoint-50")
    (new / "checkpoint-50" / "model.safetensors").write_bytes(b"damaged")
    found = clm.train(**options, resume_from_checkpoint=new)
    assert (found.steps, found.after) == (whole.steps, whole.after)


def test_where_that_checkpoint_is_gone_it_is_named(interrupted, killed_in_another_folder):
    shutil.rmtree(interrupted)
    with pytest.raises(ModelError, match=r"there is no folder .*run/checkpoint-36.*; .*new began from it: put it back"):
        clm.train(backend="bigram", resume_from_checkpoint=killed_in_another_folder)
    assert "history.jsonl" in names(killed_in_another_folder)


def test_a_run_that_begins_from_another_replaces_the_one_in_its_folder_where_this_is_asked_for(train, tmp_path):
    train(output_dir="a", max_steps=2, save_strategy="steps", save_steps=1)
    train(output_dir="b", seed=7)
    clm.train(backend="bigram", resume_from_checkpoint="a/checkpoint-1", output_dir="b", overwrite_output_dir=True)
    assert history(tmp_path / "b") == history(tmp_path / "a")
    assert cli.main(["--backend", "bigram", "train", "--config", "b/run.yaml", "--overwrite-output-dir"]) == 0
    assert history(tmp_path / "b") == history(tmp_path / "a")


@pytest.fixture
def started_again(monkeypatch):
    """Train as if a launcher had started the process again."""
    monkeypatch.setattr(train_command, "world_of", lambda *given: World(attempt=1))
    return lambda **options: clm.train(backend="bigram", **options)


def test_a_process_that_is_started_again_goes_on_in_a_run_that_began_from_another(
    interrupted, killed_in_another_folder, started_again, tmp_path
):
    options = {"resume_from_checkpoint": interrupted, "logging_steps": 9}
    whole = clm.train(backend="bigram", output_dir=tmp_path / "whole", **options)
    found = started_again(output_dir=killed_in_another_folder, **options)
    assert (found.output_dir, found.after) == (killed_in_another_folder, whole.after)
    assert history(found.output_dir) == history(whole.output_dir)


def test_a_process_that_is_started_again_hears_what_asked_the_one_before_to_stop(interrupted, started_again):
    (interrupted / "stop").touch()
    os.utime(interrupted / "stop", (0, 0))
    with pytest.raises(StoppedError, match=r"stopped by the file .*/run/stop at step 37 of 54"):
        started_again(resume_from_checkpoint=interrupted)


def test_a_process_that_is_started_again_takes_no_run_from_before_its_launcher(train, started_again, monkeypatch):
    train(output_dir="run")
    monkeypatch.setattr(mailbox, "launched", lambda: time.time() + output.TICK)
    with pytest.raises(OutputError, match="run contains another run"):
        started_again(output_dir="run")
    assert started_again(output_dir="run", max_steps=1, overwrite_output_dir=True).steps == 1


def test_a_process_that_is_started_again_before_its_first_step_replaces_the_earlier_run(train, started_again, tmp_path):
    train(output_dir="run")
    leftovers.set_aside(tmp_path / "run")
    (tmp_path / "run" / "run.yaml").write_text("max_steps: 1\n")
    assert started_again(output_dir="run", max_steps=1, overwrite_output_dir=True).steps == 1


@pytest.mark.parametrize("option", ["model_name_or_path", "config_name", "tokenizer_name"])
def test_what_a_run_started_from_may_be_gone_where_there_is_a_checkpoint(option, train, tmp_path, capfd):
    train(output_dir="base", max_steps=1)
    new = {} if option == "tokenizer_name" else {"model_type": None, "config_overrides": None}
    options = {**new, option: "base", "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    train(**options, output_dir="run")
    for name in ("results.json", "checkpoint-4/checkpoint.json"):
        (tmp_path / "run" / name).unlink()
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    (tmp_path / "base").rename("moved")
    assert cli.main(["--backend", "bigram", "train", "--resume-from-checkpoint", "run"]) == 0
    assert f"{tmp_path / 'base'} is not there any more: what was read from it" in capfd.readouterr().err
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_where_there_is_no_checkpoint_yet_it_is_missed_at_once(train):
    with pytest.raises(ModelError, match=r"model_name_or_path: there is no folder \./base"):
        train(model_type=None, model_name_or_path="./base", output_dir="run", resume_from_checkpoint="auto")
