"""What becomes of a run that is interrupted or fails, and of the one that it would replace."""

import os
import shutil
import time

import pytest
from clm_bigram import Bigrams
from support.folders import history, names

import clm_core as clm
from clm_core import cli
from clm_core.backend import World
from clm_core.commands import train as train_command
from clm_core.commands.call import Call
from clm_core.errors import ModelError, OptionError, OutputError, StoppedError
from clm_core.launch import mailbox
from clm_core.options import Given, resolve
from clm_core.paths import likely
from clm_core.registry import get_backend
from clm_core.runs import leftovers, output


@pytest.fixture
def interrupted(train, tmp_path, monkeypatch):
    """A run of three epochs of 18 steps that was ended by Ctrl-C in the step after its 40th."""
    add, steps = Bigrams.add, iter(range(40))

    def stop_after_the_last(self, blocks):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        add(self, blocks)

    monkeypatch.setattr(Bigrams, "add", stop_after_the_last)
    with pytest.raises(KeyboardInterrupt):
        train(output_dir=tmp_path / "run", num_train_epochs=3, logging_steps=7)
    monkeypatch.setattr(Bigrams, "add", add)
    return tmp_path / "run"


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


@pytest.fixture
def killed_in_another_folder(interrupted, tmp_path, monkeypatch):
    """A run in another folder that begins from a checkpoint of the interrupted one, and is ended in its third step."""
    add, steps = Bigrams.add, iter(range(2))
    monkeypatch.setattr(Bigrams, "add", lambda self, it: 1 / 0 if next(steps, None) is None else add(self, it))
    with pytest.raises(ZeroDivisionError):
        clm.train(backend="bigram", resume_from_checkpoint=interrupted, output_dir=tmp_path / "new", logging_steps=9)
    monkeypatch.setattr(Bigrams, "add", add)
    return tmp_path / "new"


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


def test_a_run_may_be_made_longer(interrupted):
    result = clm.train(backend="bigram", resume_from_checkpoint=interrupted, num_train_epochs=4)
    assert (result.steps, result.epochs) == (72, 4.0)


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


def test_a_run_that_begins_from_another_replaces_the_one_in_its_folder_where_this_is_asked_for(train, tmp_path):
    train(output_dir="a", max_steps=2, save_strategy="steps", save_steps=1)
    train(output_dir="b", seed=7)
    clm.train(backend="bigram", resume_from_checkpoint="a/checkpoint-1", output_dir="b", overwrite_output_dir=True)
    assert history(tmp_path / "b") == history(tmp_path / "a")
    assert cli.main(["--backend", "bigram", "train", "--config", "b/run.yaml", "--overwrite-output-dir"]) == 0
    assert history(tmp_path / "b") == history(tmp_path / "a")


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
