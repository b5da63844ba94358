"""`--resume-from-checkpoint auto`: the same command starts a run, resumes it, finishes it, and then does nothing."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields

import pytest
from clm_bigram import Bigrams
from support.folders import history, names
from support.heard import Heard

import clm_core as clm
from clm_core.config import TrainConfig
from clm_core.errors import ModelError, OptionError, OutputError, StoppedError
from clm_core.runs import changes
from clm_pt.backend import PyTorchOptions

OPTIONS = {"output_dir": "run", "max_steps": 6, "save_strategy": "steps", "save_steps": 2, "logging_steps": 2}


@pytest.fixture
def repeat(train):
    """The same command again, with what it said."""

    def run(**options):
        heard = Heard()
        asked = {**OPTIONS, "resume_from_checkpoint": "auto", "progress": heard, **options}
        return train(**{name: value for name, value in asked.items() if value is not None}), heard.lines

    return run


@pytest.fixture
def ended_at(train, monkeypatch):
    """Run the command until an exception in its n-th step."""

    def run(step, **options):
        add, steps = Bigrams.add, iter(range(step - 1))
        monkeypatch.setattr(Bigrams, "add", lambda self, it: 1 / 0 if next(steps, None) is None else add(self, it))
        with pytest.raises(ZeroDivisionError):
            train(**{**OPTIONS, "resume_from_checkpoint": "auto", **options})
        monkeypatch.setattr(Bigrams, "add", add)

    return run


def weights(run):
    return (run / "model.safetensors").read_bytes()


@pytest.mark.parametrize("step", [2, 3, 6], ids="interrupted in step {}".format)
def test_the_same_command_ends_a_run_as_if_it_had_never_been_interrupted(repeat, ended_at, tmp_path, step):
    ended_at(step)
    result, said = repeat()
    repeat(output_dir="whole")
    assert (result.steps, weights(tmp_path / "run")) == (6, weights(tmp_path / "whole"))
    assert history(tmp_path / "run") == history(tmp_path / "whole")
    begun = "resuming run at step" if step > 2 else "run has no complete checkpoint: starting from the beginning"
    assert next(line for line in said if line.startswith("r")).startswith(begun)


def test_a_finished_run_is_not_trained_again_and_says_so(repeat, tmp_path):
    first, _ = repeat()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    again, said = repeat(eval_strategy="no")
    assert (again, "run has already finished its 6 steps" in said[0]) == (first, True)
    assert said[1] == "eval_strategy no has no effect any more: it was trained with epoch"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


@pytest.mark.parametrize("lost", ["results.json", "model.safetensors", "config.json", "history.jsonl", "run.yaml"])
def test_a_finished_training_whose_files_are_not_all_there_is_finished_again(repeat, tmp_path, lost):
    whole, _ = repeat()
    kept = weights(tmp_path / "run")
    (tmp_path / "run" / lost).unlink()
    result, _ = repeat()
    assert (result.history, result.after, weights(tmp_path / "run")) == (whole.history, whole.after, kept)
    assert "already finished" in repeat()[1][0]


def test_a_finished_run_goes_on_if_it_is_to_have_more_steps(repeat):
    repeat()
    result, said = repeat(max_steps=8)
    assert (result.steps, "max_steps: 6 before, 8 from now on" in said) == (8, True)
    assert {"step": 6, "changed": {"max_steps": [6, 8]}} in result.history


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(repeat, ended_at, tmp_path):
    ended_at(6)
    with (tmp_path / "run" / "checkpoint-4" / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    result, said = repeat()
    assert (result.steps, weights(tmp_path / "run")) == (6, weights(repeat(output_dir="whole")[0].output_dir))
    assert "checkpoint-4 is damaged: model.safetensors does not match its checksum" in said[0]


def test_a_run_that_is_repeated_from_an_earlier_step_resumes_where_that_ended(repeat, ended_at):
    every = {"save_total_limit": "none", "logging_steps": 1}
    repeat(max_steps=8, **every)
    ended_at(4, max_steps=6, resume_from_checkpoint="run/checkpoint-2", **every)  # After three steps more, at step 5.
    assert "resuming run at step 4 of 6" in repeat(**every)[1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 1),
        ("block_size", 8),
        ("validation_split_percentage", 30),
        ("max_train_samples", 9),
        ("append_eos", False),
    ],
)
def test_what_defines_the_data_or_the_model_is_refused_by_name(repeat, ended_at, tmp_path, name, value):
    ended_at(4)
    before = names(tmp_path / "run")
    with pytest.raises(OptionError, match=rf"^{name} is .*, but the run was started with"):
        repeat(**{name: value})
    assert names(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ({}, {"lora_alpha": 8}, "lora_alpha is 8, but the run was started with 4, and"),
        (
            {},
            {"lora_target_modules": ("all-linear",)},
            "is all-linear, but the run was started without it, and",
        ),
        ({"lora_target_modules": ["c_fc"]}, {}, "lora_target_modules is not given, but the run was started with c_fc"),
        ({"tokenizer_name": "x"}, {}, "tokenizer_name is not given, but the run was started with x, and"),
    ],
)
def test_what_was_not_given_is_said_as_what_it_means(before, now, said):
    with pytest.raises(OptionError, match=said):
        changes.changes({"lora_r": 4, **before}, TrainConfig(lora_r=4, **now), {})
    assert changes.changes({"lora_r": 4}, TrainConfig(lora_r=4, lora_alpha=4), {}) == {}
    assert changes.lines({"max_eval_samples": (None, 3)}) == ["max_eval_samples: none before, 3 from now on"]


def test_another_optimizer_is_refused_by_name():
    with pytest.raises(OptionError, match=r"^optim is muon, but the run was started with adamw_torch"):
        changes.changes({}, TrainConfig(optim="muon"), {})


def test_data_that_has_changed_in_its_file_is_named_by_the_option(repeat, ended_at, corpus):
    ended_at(4)
    corpus.write_text(corpus.read_text() * 2)
    with pytest.raises(ModelError, match=r"was trained on other text than there is in train_file .*corpus\.jsonl now"):
        repeat()


@pytest.mark.parametrize(
    ("before", "now", "named"),
    [
        ({"text_column": "answers.text"}, {"train_file": ("mine.txt",)}, "train_file is mine.txt"),
        ({"train_file": ["mine.txt"]}, {"text_column": "answers.text"}, "train_file is not given"),
        ({"train_file": ["mine.csv"]}, {"train_file": ("other.csv",), "text_column": "body"}, "text_column is body"),
    ],
)
def test_where_the_text_is_from_is_named_before_the_options_that_come_with_it(before, now, named):
    with pytest.raises(OptionError, match=f"^{named}, but the run was started"):
        changes.changes(before, TrainConfig(**now), {})


def test_dropout_may_change_and_is_named_but_no_other_part_of_the_model(repeat, ended_at):
    ended_at(4, config_overrides="n_layer=1,attn_pdrop=0.1")
    with pytest.raises(OptionError, match="config_overrides is n_layer=2"):
        repeat(config_overrides="n_layer=2,attn_pdrop=0.1")
    _, said = repeat(config_overrides="n_layer=1,attn_pdrop=0.2")
    assert "config_overrides attn_pdrop: 0.1 before, 0.2 from now on" in said


def test_a_rate_that_no_step_is_left_for_is_said_to_have_no_effect():
    found = {"learning_rate": (1e-3, 5e-3), "per_device_eval_batch_size": (8, 2)}
    assert changes.without_effect(found) == [
        "learning_rate 0.005 has no effect any more: it was trained with 0.001",
        "per_device_eval_batch_size: 8 before, 2 from now on",
    ]


def test_what_a_backend_alone_makes_another_run_of_is_settled_too():
    with pytest.raises(OptionError, match=r"pt\.guide is yes, but the run was started with no"):
        changes.changes({}, TrainConfig(), {"pt": PyTorchOptions(guide=True)})


def test_a_rank_that_differs_is_named_and_not_what_follows_from_it():
    with pytest.raises(OptionError, match="lora_r is 4, but the run was started with 2"):
        changes.changes({"lora_r": 2}, TrainConfig(lora_r=4), {})


def test_every_option_may_change_or_is_settled_or_has_no_consequence():
    kinds = (changes.MAY_CHANGE, changes.SETTLED, changes.ELSEWHERE)
    assert sorted(name for kind in kinds for name in kind) == sorted(field.name for field in fields(TrainConfig))


def test_a_run_is_found_without_its_folder_being_named(repeat, ended_at, tmp_path):
    ended_at(4, output_dir=None)
    result, _ = repeat(output_dir=None)
    assert str(result.output_dir) == "runs/corpus-bigram"
    assert names(tmp_path / "runs") == ["corpus-bigram"]


def test_advice_to_resume_a_run_that_has_no_checkpoint_yet_can_be_followed(train, ended_at):
    ended_at(2)
    with pytest.raises(OutputError, match="resume it with --resume-from-checkpoint run"):
        train(**OPTIONS)
    assert clm.train(backend="bigram", resume_from_checkpoint="run").steps == 6


def test_a_run_without_its_options_says_which_command_resumes_it(ended_at, repeat, tmp_path):
    ended_at(4)
    (tmp_path / "run" / "run.yaml").unlink()
    with pytest.raises(OptionError, match=r"has no run\.yaml.*repeat the command.*--resume-from-checkpoint auto"):
        clm.train(backend="bigram", resume_from_checkpoint="run")
    assert repeat()[0].steps == 6


@pytest.fixture
def stopped_at_3(repeat, tmp_path, monkeypatch):
    """Run the command until somebody touches the file `stop` in its third step; returns the message."""

    def run(**options):
        add, steps = Bigrams.add, iter(range(2))

        def add_and_ask(self, blocks):
            add(self, blocks)
            if next(steps, None) is None:
                (tmp_path / "run" / "stop").touch()

        monkeypatch.setattr(Bigrams, "add", add_and_ask)
        with pytest.raises(StoppedError) as caught:
            repeat(**options)
        monkeypatch.setattr(Bigrams, "add", add)
        return str(caught.value)

    return run


def test_the_file_stop_ends_a_training_after_its_step_and_is_gone_when_it_goes_on(repeat, stopped_at_3, tmp_path):
    assert "stopped by the file run/stop at step 3 of 6: run/checkpoint-3 is complete" in stopped_at_3()
    os.utime(tmp_path / "run" / "stop", (0, 0))  # A person does not repeat a command within a tick of the clock.
    _, said = repeat()
    assert "resuming run at step 3 of 6" in said
    assert weights(tmp_path / "run") == weights(repeat(output_dir="whole")[0].output_dir)
    assert "stop" not in names(tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "kept"),
    [({"save_on_signal": False}, ["checkpoint-2"]), ({"save_strategy": "no", "save_steps": None}, ["checkpoint-3"])],
    ids=["not to save", "without checkpoints of its own"],
)
def test_a_checkpoint_is_written_then_unless_that_is_not_wanted(stopped_at_3, tmp_path, options, kept):
    assert f"run/{kept[0]} is complete; to resume: clm --backend bigram train" in stopped_at_3(**options)
    assert [name for name in names(tmp_path / "run") if name.startswith("checkpoint")] == kept


HOLD = """
import pathlib, sys
from clm_core.durable.lock import locked
with locked(pathlib.Path("run")):
    print()
    sys.stdin.read()"""


def test_a_second_process_is_refused_with_who_holds_the_run_and_a_dead_one_holds_none(repeat, ended_at):
    ended_at(4)
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(OutputError, match=rf"run is in use by process {other.pid} on "):
            repeat()
        other.kill()
    assert repeat()[0].steps == 6


def test_the_run_that_is_overwritten_outlives_kills_before_the_first_step_of_the_new_one(train, repeat, tmp_path):
    train(**OPTIONS)
    old = weights(tmp_path / "run")
    killed = """
import os, clm_bigram, clm_core as clm
clm_bigram.Bigrams.add = lambda self, blocks: os._exit(9)
clm.train(backend="bigram", train_file="corpus.jsonl", model_type="gpt2", tokenizer_name="sample", block_size=16,
          output_dir="run", max_steps=2, overwrite_output_dir=True)"""
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == 9
    (aside,) = (tmp_path / "run").glob(".replaced-*")
    assert weights(aside) == old
    assert "already finished" in repeat()[1][0]
    assert weights(tmp_path / "run") == old


def test_nothing_is_written_or_moved_through_links_in_a_strangers_run(repeat, ended_at, tmp_path):
    ended_at(6)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("run.yaml", "history.jsonl", "results.json", ".run.yaml", "error.log"):
        (elsewhere / name).write_text("mine")
        (tmp_path / "run" / name).unlink(missing_ok=True)
        (tmp_path / "run" / name).symlink_to(elsewhere / name)
    for name in ("checkpoint-6", ".replaced-1", ".replacing-1", ".checkpoint-1", "stop"):
        (tmp_path / "run" / name).symlink_to(elsewhere)
    os.utime(tmp_path / "run" / "stop", (0, 0), follow_symlinks=False)
    assert repeat()[0].steps == 6
    assert {path.name: path.read_text() for path in elsewhere.iterdir()} == dict.fromkeys(names(elsewhere), "mine")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["steps"] == 6


def test_the_options_of_a_checkpoint_name_no_folder_of_this_machine(ended_at, tmp_path):
    ended_at(4)
    assert str(tmp_path) not in (tmp_path / "run" / "checkpoint-2" / "run.yaml").read_text()
    assert str(tmp_path) in (tmp_path / "run" / "run.yaml").read_text()
    shutil.rmtree(tmp_path / "run")
