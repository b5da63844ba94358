"""What becomes of a run that is interrupted or fails, and of the one that it would replace."""

import errno
import shutil
import time
from functools import partial
from pathlib import Path

import pytest
from support.folders import history, names

import clm_core as clm
from clm_core.commands import train as train_command
from clm_core.commands.call import Call
from clm_core.errors import OptionError, OutputError, StoppedError
from clm_core.options import Given, resolve
from clm_core.paths import likely
from clm_core.registry import get_backend
from clm_core.runs import output


def test_an_interrupted_run_has_its_checkpoints_and_nothing_that_looks_finished(interrupted):
    assert names(interrupted) == ["checkpoint-18", "checkpoint-36", "history.jsonl", "run.yaml"]


@pytest.mark.parametrize("place", ["", "checkpoint-36"])
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(train, interrupted, tmp_path, place):
    whole = train(output_dir=tmp_path / "whole", num_train_epochs=3, logging_steps=7)
    resumed = clm.train(backend="bigram", resume_from_checkpoint=interrupted / place)
    assert resumed.output_dir == interrupted
    assert (resumed.steps, resumed.tokens_trained) == (whole.steps, whole.tokens_trained)
    assert (resumed.before, resumed.after) == (whole.before, whole.after)
    assert history(interrupted) == history(tmp_path / "whole")
    weights = [(folder / "model.safetensors").read_bytes() for folder in (interrupted, tmp_path / "whole")]
    assert weights[0] == weights[1]


def test_a_run_goes_on_when_the_checkpoint_that_it_resumed_from_is_pruned(train, tmp_path):
    options = {"output_dir": tmp_path / "run", "save_strategy": "steps", "save_steps": 2, "save_total_limit": 1}
    train(max_steps=1, **options)
    train(max_steps=6, resume_from_checkpoint="auto", **options)
    assert [name for name in names(tmp_path / "run") if name.startswith("check")] == ["checkpoint-6"]


def test_a_link_to_nowhere_is_no_folder_for_a_run(train, tmp_path):
    (tmp_path / "new").symlink_to("gone")
    with pytest.raises(OutputError, match=r"^output_dir new is a link to gone, which is not there: choose a folder$"):
        train(output_dir="new")


def test_a_hidden_folder_is_not_proposed_for_one_that_is_missing(tmp_path):
    (tmp_path / ".replaced-1").mkdir()
    assert "did you mean" not in likely(str(tmp_path / "replaced-1"))
    assert "did you mean" in likely(str(tmp_path / ".replaced-2"))


def test_a_stop_that_is_asked_for_while_the_run_starts_is_heard(interrupted, monkeypatch):
    def touching(*given):
        (interrupted / "stop").touch()
        return plan(*given)

    plan = train_command.plan
    monkeypatch.setattr(train_command, "plan", touching)
    with pytest.raises(StoppedError, match=r"stopped by the file .*/run/stop at step 37 of 54"):
        clm.train(backend="bigram", resume_from_checkpoint=interrupted)


def test_a_stop_that_is_asked_for_after_the_command_was_read_is_heard(interrupted):
    given = {"resume_from_checkpoint": Given(str(interrupted), "--resume-from-checkpoint")}
    call = Call(given=given, config=None, backend="bigram", json=False, verbose=False, argument=None)
    (interrupted / "stop").touch()
    time.sleep(3 * output.TICK)
    with pytest.raises(StoppedError, match=r"stopped by the file .*/run/stop at step 37 of 54"):
        train_command.run(call)


@pytest.mark.parametrize("how", ["a copy", "a link"])
def test_the_folder_that_a_checkpoint_was_brought_to_is_not_taken_for_that_of_a_run(interrupted, tmp_path, how):
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "config.json").write_text("mine")
    if how == "a copy":
        shutil.copytree(interrupted / "checkpoint-36", keep / "best")
    else:
        (keep / "best").symlink_to(interrupted / "checkpoint-36")
    with pytest.raises(OutputError, match=r"keep has a checkpoint, but is not the folder of a run.*--output-dir$"):
        clm.train(backend="bigram", resume_from_checkpoint=keep / "best")
    assert (names(keep), (keep / "config.json").read_text()) == (["best", "config.json"], "mine")
    assert clm.train(backend="bigram", resume_from_checkpoint=keep / "best", output_dir=tmp_path / "new").steps == 54


@pytest.mark.parametrize("named", ["run", "auto"])
def test_a_run_that_was_made_shorter_without_a_step_may_be_as_long_as_before(interrupted, train, named):
    assert clm.train(backend="bigram", resume_from_checkpoint="run", max_steps=36).steps == 36
    more = {"output_dir": "run", "num_train_epochs": 3, "logging_steps": 7} if named == "auto" else {"max_steps": 54}
    run = train if named == "auto" else partial(clm.train, backend="bigram")
    assert run(resume_from_checkpoint=named, **more).steps == 54


def test_an_empty_file_of_options_is_named(interrupted):
    (interrupted / "run.yaml").write_bytes(b"")
    with pytest.raises(OptionError, match=r"run.yaml is empty: repeat the command .* --resume-from-checkpoint auto$"):
        clm.train(backend="bigram", resume_from_checkpoint=interrupted)


def test_an_attempt_that_fails_before_its_first_step_leaves_the_run_as_it_was(interrupted, monkeypatch):
    before = (interrupted / "run.yaml").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("clm_bigram.Bigrams.add", lambda self, blocks: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            clm.train(backend="bigram", resume_from_checkpoint=interrupted, max_steps=210, save_total_limit=1)
    assert (interrupted / "run.yaml").read_bytes() == before
    assert {"checkpoint-18", "checkpoint-36"} <= {*names(interrupted)}
    assert clm.train(backend="bigram", resume_from_checkpoint=interrupted).steps == 54


def test_a_run_that_cannot_be_moved_aside_stays_as_it_is(train, tmp_path, monkeypatch):
    train(output_dir="run")
    before, rename = names(tmp_path / "run"), Path.rename

    def refusing(self, target):
        if self.name == "results.json" and target.parent.name.startswith(".replacing"):
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refusing)
    with pytest.raises(OutputError, match=r"results.json cannot be written: Permission denied"):
        train(output_dir="run", overwrite_output_dir=True)
    assert names(tmp_path / "run") == before


def test_a_run_may_be_made_longer(interrupted):
    result = clm.train(backend="bigram", resume_from_checkpoint=interrupted, num_train_epochs=4)
    assert (result.steps, result.epochs) == (72, 4.0)


def test_a_run_that_is_made_as_short_as_its_checkpoint_is_scored(train, tmp_path):
    steps = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 4}
    train(output_dir="run", max_steps=4, **steps)
    short = clm.train(backend="bigram", resume_from_checkpoint="run/checkpoint-2", max_steps=2, output_dir="short")
    assert short.after == train(output_dir="whole", max_steps=2, **steps).after
    assert history(tmp_path / "short")[-1] == history(tmp_path / "whole")[-1]


def test_a_run_cannot_go_on_with_blocks_in_another_order(interrupted):
    with pytest.raises(OptionError, match="seed is 7, but the run was started with 42"):
        clm.train(backend="bigram", resume_from_checkpoint=interrupted, seed=7)
    assert "checkpoint-36" in names(interrupted)


@pytest.mark.parametrize("place", ["", "checkpoint-36"])
def test_a_run_is_not_resumed_and_deleted_at_once(interrupted, place):
    with pytest.raises(OptionError, match="give one of them"):
        clm.train(backend="bigram", resume_from_checkpoint=interrupted / place, overwrite_output_dir=True)
    assert "checkpoint-36" in names(interrupted)


def test_another_run_is_only_deleted_when_this_is_asked_for(train, tmp_path):
    train(output_dir=tmp_path / "run", num_train_epochs=2)
    (tmp_path / "run" / "notes.md").write_text("mine")
    with pytest.raises(OutputError, match="contains another run"):
        train(output_dir=tmp_path / "run")
    train(output_dir=tmp_path / "run", overwrite_output_dir=True)
    assert {name for name in names(tmp_path / "run") if name.startswith("checkpoint")} == {"checkpoint-18"}
    assert (tmp_path / "run" / "notes.md").read_text() == "mine"


def test_a_run_that_fails_before_its_first_step_leaves_the_one_it_was_to_replace(train, tmp_path, monkeypatch):
    train(output_dir="run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    monkeypatch.setattr("clm_bigram.Bigrams.add", lambda self, blocks: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(output_dir="run", overwrite_output_dir=True, seed=5)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()} == before


def test_a_run_that_fails_before_its_first_step_leaves_nothing(train, tmp_path, monkeypatch):
    monkeypatch.setattr("clm_bigram.Bigrams.add", lambda self, blocks: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(output_dir="run")
    assert not (tmp_path / "run").exists()


def test_a_folder_is_not_overwritten_by_a_run_that_starts_from_what_is_in_it(train):
    train(output_dir="run")
    more = {"model_type": None, "model_name_or_path": "run"}
    with pytest.raises(OutputError, match="run would be overwritten, but model_name_or_path run is in it"):
        train(output_dir="run", overwrite_output_dir=True, **more)


def test_a_run_is_not_resumed_into_the_folder_of_another(train):
    train(output_dir="a", max_steps=2, save_strategy="steps", save_steps=1)
    train(output_dir="b")
    with pytest.raises(OutputError, match="b contains another run"):
        clm.train(backend="bigram", resume_from_checkpoint="a/checkpoint-1", output_dir="b")


def test_a_run_that_was_overwritten_can_be_resumed(train):
    for _ in range(2):
        train(output_dir="run", max_steps=4, save_strategy="steps", save_steps=2, overwrite_output_dir=True)
    result = clm.train(backend="bigram", resume_from_checkpoint="run/checkpoint-2")
    assert result.steps == 4


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
def test_a_training_whose_figures_are_no_numbers_ends_and_saves_nothing(train, tmp_path, monkeypatch, name):
    from clm_core.backend import StepDone
    from clm_core.errors import TrainingError

    def report_nonsense(self, job):
        job.report(StepDone(**{"step": 1, "loss": 1.0, name: float("nan")}))

    monkeypatch.setattr("clm_bigram.BigramBackend.train", report_nonsense)
    with pytest.raises(TrainingError, match="is nan at step 1, where the learning rate was"):
        train(output_dir="run")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_that_was_moved_out_of_its_run_has_the_options_itself(tmp_path):
    sample = {"backend": "bigram", "max_train_samples": 20, "block_size": 32, "num_train_epochs": 1}
    clm.train(**sample, output_dir=tmp_path / "run")
    checkpoint = next((tmp_path / "run").glob("checkpoint-*")).rename(tmp_path / "moved")
    result = clm.train(backend="bigram", resume_from_checkpoint=checkpoint, output_dir=tmp_path / "new")
    assert (tmp_path / "new/model.safetensors").read_bytes() == (tmp_path / "run/model.safetensors").read_bytes()
    assert result.output_dir == tmp_path / "new"


@pytest.mark.parametrize(("environment", "number"), [({}, "2"), ({"LOCAL_RANK": "0"}, None)])
def test_a_run_has_as_many_processes_as_before_unless_somebody_else_started_them(
    environment, number, interrupted, monkeypatch
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    file = interrupted / "run.yaml"
    file.write_text(file.read_text() + 'nproc_per_node: "2"\n')
    given = {"resume_from_checkpoint": Given(str(interrupted), "here")}
    assert resolve.training(given, file=None, backend=get_backend("bigram")).config.nproc_per_node == number
