"""What ends a training says which checkpoint there is, and a command that goes on from it and works."""

import errno
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from clm_bigram import BigramBackend, Bigrams
from safetensors.numpy import save_file
from support.folders import history, names
from support.shell import words

from clm_core import cli
from clm_core.checkpoints import saving
from clm_core.commands import execution
from clm_core.durable import append
from clm_core.errors import ClmError, DiskError, DiskFullError, DivergedError, ProcessError, TrainingError
from clm_core.runs import advice as advising
from clm_core.runs import history as recording
from clm_core.runs.advice import Advice, with_command

OPTIONS = {"output_dir": "run", "max_steps": 6, "save_strategy": "steps", "save_steps": 2, "save_total_limit": None}
AUTO = ["--resume-from-checkpoint", "auto"]


@pytest.fixture
def broken(train, monkeypatch):
    """Train with something else in place of an attribute of the toy, and return the error that this ends with."""

    def run(owner, name, instead, expected, **options):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, instead)
            with pytest.raises(expected) as caught:
                train(**(options or OPTIONS))
        return str(caught.value)

    return run


def after(calls, usual, error):
    """A function that does as usual for some calls, and raises an error in the next."""
    left = iter(range(calls))

    def instead(*given):
        if next(left, None) is None:
            raise error
        return usual(*given)

    return instead


def command_in(text):
    return words(re.split(r"to (?:resume|begin again): clm ", text)[1])


def test_the_command_after_a_full_disk_goes_on_to_the_same_weights(broken, train, tmp_path):
    error = OSError(errno.ENOSPC, "No space left on device")
    said = broken(Bigrams, "save", after(2, Bigrams.save, error), DiskFullError)
    assert said.startswith("the disk is full: run/checkpoint-6: free some space")
    assert "run/checkpoint-4 is complete; to resume: clm --backend bigram train --resume-from-checkpoint run" in said
    assert names(tmp_path / "run") == ["checkpoint-2", "checkpoint-4", "history.jsonl", "run.yaml"]
    assert cli.main(command_in(said)) == 0
    train(**{**OPTIONS, "output_dir": "whole"})
    one, other = ((tmp_path / run / "model.safetensors").read_bytes() for run in ("run", "whole"))
    assert one == other


@pytest.mark.parametrize("folder", ["-dash", "two\nlines", "it's\tone\\\x07"])
def test_the_command_works_whatever_the_name_of_the_folder(broken, folder):
    error = OSError(errno.ENOSPC, "No space left on device")
    said = broken(Bigrams, "save", after(2, Bigrams.save, error), DiskFullError, **{**OPTIONS, "output_dir": folder})
    command = said.rpartition("to resume: clm ")[2]
    assert command.isprintable()
    assert cli.main(words(command)) == 0


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EIO, errno.EACCES, errno.EROFS])
def test_the_trained_model_that_the_disk_does_not_take_is_in_the_last_checkpoint(broken, tmp_path, number):
    said = broken(Bigrams, "save", after(3, Bigrams.save, OSError(number, "refused")), DiskError)
    assert "run/checkpoint-6 is complete; to resume: " in said
    assert re.search(r"\([\d.]+ kB are needed, [\d.]+ [GT]B are free\)|your quota is used up, ", said)
    assert cli.main(command_in(said)) == 0
    assert (tmp_path / "run" / "results.json").is_file()


def test_where_an_earlier_checkpoint_cannot_be_removed_the_new_one_is_named(broken):
    def refuse(path):
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    said = broken(saving, "_discard", refuse, DiskError, **{**OPTIONS, "save_total_limit": 1})
    assert said.startswith("run/checkpoint-2 cannot be removed: Operation not permitted: make it writable")
    assert "; run/checkpoint-4 is complete; to resume: " in said
    assert cli.main(command_in(said)) == 0


@pytest.mark.parametrize("calls", [0, 2])
def test_a_history_that_cannot_be_written_is_named(broken, calls):
    instead = after(calls, append, OSError(errno.EIO, "Input/output error"))
    said = broken(recording, "append", instead, DiskError)
    assert said.startswith("run/history.jsonl cannot be written: Input/output error: its disk fails")
    assert said.endswith("there is no checkpoint") is (calls == 0)


def test_neither_a_checkpoint_nor_a_model_with_weights_that_are_not_finite_is_written(broken, tmp_path):
    scales = iter((1.0, np.nan, np.nan))

    def save(self, folder):
        save_file({**vars(self), "scale": np.array([1.0, next(scales)])}, folder / "model.safetensors")

    said = broken(Bigrams, "save", save, TrainingError)
    assert "the weight scale has the value nan at [1]; run/checkpoint-2 is from before; to resume: " in said
    assert names(tmp_path / "run") == ["checkpoint-2", "history.jsonl", "run.yaml"]
    broken(Bigrams, "save", save, TrainingError, save_strategy="no", max_steps=6, output_dir="other")
    assert names(tmp_path / "other") == ["history.jsonl", "run.yaml"]


def test_a_loss_that_is_no_number_names_the_last_checkpoint_before_it(broken, tmp_path):
    usual, losses = Bigrams.score, iter((1.0, 1.0, 1.0, float("nan")))

    def score(self, blocks):
        return replace(usual(self, blocks), loss_sum=next(losses))

    said = broken(Bigrams, "score", score, TrainingError, **OPTIONS, eval_strategy="no")
    assert "the loss is nan at step 4" in said
    assert "; run/checkpoint-2 is from before; to resume: " in said
    assert cli.main(command_in(said)) == 0


def test_a_step_is_not_resumed_right_before_a_loss_that_would_be_the_same_again(broken, tmp_path):
    usual, losses = Bigrams.score, iter((1.0, 1.0, float("nan")))

    def score(self, blocks):
        return replace(usual(self, blocks), loss_sum=next(losses))

    said = broken(Bigrams, "score", score, TrainingError, **OPTIONS, eval_strategy="no")
    assert "; there is no checkpoint from before; to begin again: " in said
    assert "--output-dir run --overwrite-output-dir" in said  # It may be a folder that was chosen.
    assert names(tmp_path / "run") == ["checkpoint-2", "history.jsonl", "run.yaml"]
    assert cli.main(command_in(said)) == 0
    assert history(tmp_path / "run")[-1]["step"] == 6


class Recorder:
    checkpoint, step, start_step = None, 5, 0


def advice(folder, backend="pt", rate=1e-4):
    return Advice(folder=folder, recorder=Recorder, backend=backend, slower_rate=lambda: rate)


@pytest.mark.parametrize("error", [DiskError("full"), DivergedError("a spike", step=5)], ids=["a full disk", "a spike"])
def test_a_damaged_checkpoint_is_not_named(train, tmp_path, error):
    train(**OPTIONS)
    for step in (4, 6):
        (tmp_path / "run" / f"checkpoint-{step}" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ClmError, match=r"run/checkpoint-2 is "), advice(tmp_path / "run").shown():
        raise error
    said = str(with_command(ProcessError("gone", code=70), tmp_path / "run", "pt"))
    assert "run/checkpoint-2 is complete; to resume: " in said


def test_the_last_checkpoint_is_named_where_the_folder_cannot_be_read_any_more(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(advising, "list_complete", refuse)
    recorder = type("Saved", (Recorder,), {"checkpoint": tmp_path / "checkpoint-4"})
    seen = replace(advice(tmp_path), recorder=recorder)
    with pytest.raises(DiskError, match="checkpoint-4 is complete; to resume: "), seen.shown():
        raise DiskError("no permission")


@pytest.mark.parametrize(
    ("step", "error", "said"),
    [
        (4, DiskError("full"), "resume-from-checkpoint {run}/checkpoint-4 --output-dir {new}$"),
        (5, DiskError("full"), "resume-from-checkpoint {new}$"),
        (4, DivergedError("a spike", step=4), "{run}/checkpoint-2 --output-dir {new} --learning-rate 0.0001$"),
        (5, DivergedError("a spike", step=4), "{run}/checkpoint-2 --output-dir {new}-again --learning-rate 0.0001$"),
    ],
)
def test_a_run_that_began_from_another_one_is_resumed_without_changing_that(train, tmp_path, step, error, said):
    train(**OPTIONS)
    recorder = type("Begun", (), {"checkpoint": tmp_path / "run" / "checkpoint-4", "step": step, "start_step": 4})
    begun = replace(advice(tmp_path / "new"), recorder=recorder, begun_from=recorder.checkpoint)
    with pytest.raises(ClmError, match=said.format(run=tmp_path / "run", new=tmp_path / "new")), begun.shown():
        raise error


def test_a_checkpoint_of_the_run_that_it_began_from_is_named_where_its_own_come_too_late(train, tmp_path):
    train(**OPTIONS)
    own = shutil.copytree(tmp_path / "run" / "checkpoint-6", tmp_path / "new" / "checkpoint-6")
    (tmp_path / "new-again").mkdir()
    recorder = type("Begun", (), {"checkpoint": own, "step": 7, "start_step": 4})
    begun = replace(advice(tmp_path / "new"), recorder=recorder, begun_from=tmp_path / "run" / "checkpoint-4")
    with pytest.raises(ClmError, match=r"run/checkpoint-4 --output-dir .*/new-again-2 "), begun.shown():
        raise DivergedError("a spike", step=6)


def test_a_run_that_began_from_another_one_and_was_resumed_does_not_begin_again_in_its_own_folder(train, tmp_path):
    train(**OPTIONS)
    own = shutil.copytree(tmp_path / "run" / "checkpoint-6", tmp_path / "new" / "checkpoint-6")
    recorder = type("Resumed", (), {"checkpoint": own, "step": 6, "start_step": 6})
    begun = replace(advice(tmp_path / "new"), recorder=recorder, begun_from=tmp_path / "run" / "checkpoint-4")
    with pytest.raises(ClmError, match=r"run/checkpoint-4 --output-dir .*/new-again "), begun.shown():
        raise DivergedError("a spike", step=6)


def test_a_folder_with_the_name_of_a_word_is_told_from_it(broken):
    error = OSError(errno.ENOSPC, "No space left on device")
    said = broken(Bigrams, "save", after(2, Bigrams.save, error), DiskFullError, **{**OPTIONS, "output_dir": "auto"})
    assert said.endswith("--resume-from-checkpoint ./auto")
    assert cli.main(command_in(said)) == 0


def test_the_command_after_a_spike_has_half_of_the_learning_rate(train, tmp_path):
    train(**OPTIONS)
    said = "checkpoint-2 is from before.*/checkpoint-2 --learning-rate 0.0001$"
    for expected in (said, "there is no checkpoint from before"):
        with pytest.raises(TrainingError, match=expected), advice(tmp_path / "run").shown():
            raise DivergedError("a spike", step=3)
        shutil.rmtree(tmp_path / "run" / "checkpoint-2", ignore_errors=True)


def test_a_run_that_was_resumed_is_not_to_be_overwritten_by_what_its_file_of_options_says(tmp_path):
    resumed = type("Resumed", (Recorder,), {"start_step": 5})
    seen = replace(advice(tmp_path / "run"), recorder=resumed)
    with pytest.raises(TrainingError, match=r"from before; train it anew, in another --output-dir$"), seen.shown():
        raise DivergedError("a spike", step=3)


@pytest.mark.parametrize(("least", "rate"), [("min_lr=0.0006", None), ("min_lr=0.0004", 5e-4)])
def test_a_learning_rate_that_the_schedule_does_not_take_is_not_advised(train, monkeypatch, least, rate):
    advised = []
    monkeypatch.setattr(execution, "Advice", lambda **about: advised.append(about["slower_rate"]()) or Advice(**about))
    monkeypatch.setattr(BigramBackend, "unsupported", {})
    options = {"learning_rate": 1e-3, "lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": least}
    train(**OPTIONS, **options)
    assert advised == [rate]


@pytest.mark.parametrize("name", ["sample", "checkpoint-9", "sample/checkpoint-9"])
def test_a_run_may_have_a_name_that_means_something_else(broken, train, tmp_path, name):
    (tmp_path / "sample").mkdir(exist_ok=True)
    options = {**OPTIONS, "output_dir": name, "resume_from_checkpoint": "auto"}
    for saves in (0, 1):  # Nothing is there of the first; the second ends with one checkpoint.
        said = broken(Bigrams, "save", after(saves, Bigrams.save, OSError(errno.EIO, "failed")), DiskError, **options)
    assert cli.main(command_in(said)) == 0
    train(**OPTIONS)
    assert history(tmp_path / name) == history(tmp_path / "run")
    written = (tmp_path / name / "results.json").stat().st_mtime_ns
    for more in ([], ["--resume-from-checkpoint", name]):
        assert cli.main(["--backend", "bigram", "train", "--config", f"{name}/run.yaml", *(more or AUTO)]) == 0
    assert (tmp_path / name / "results.json").stat().st_mtime_ns == written
    assert cli.main(["verify", name]) == 0
