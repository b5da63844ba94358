"""Budgets: a training of so many tokens, whose schedule ends with them, and one of so much time, which goes on."""

import json
import signal

import pytest
from small_corpus import SMALL
from support.folders import history

import clm_core as clm
from clm_core.commands.summary import of_training
from clm_core.config import TrainConfig
from clm_core.config.values import duration, seconds
from clm_core.errors import OptionError
from clm_core.schedule import Schedule
from clm_core.stopping import Stop

MOMENT = "0.000001s"


def schedule(blocks=100, **options):
    return Schedule.from_config(TrainConfig(block_size=16, **options), blocks=blocks)


@pytest.mark.parametrize(
    ("tokens", "options", "steps"),
    [
        (4 * 15, {}, 1),
        (4 * 15 + 59, {}, 1),
        (100 * 15, {}, 25),
        (2 * 100 * 15 + 4 * 15, {}, 51),
        (4 * 15 * 3, {"gradient_accumulation_steps": 3}, 1),
        (100 * 15, {"per_device_train_batch_size": 8}, 13),  # The last step of an epoch is of 4 blocks.
        (99 * 15, {"per_device_train_batch_size": 8}, 12),
        (97 * 15, {"per_device_train_batch_size": 8, "dataloader_drop_last": True}, 12),
    ],
)
def test_as_many_steps_as_the_tokens_suffice_for(tokens, options, steps):
    course = schedule(max_trained_tokens=tokens, **{"per_device_train_batch_size": 4, **options})
    assert course.total_steps == steps
    assert course.blocks_until(steps) * 15 <= tokens < course.blocks_until(steps + 1) * 15
    assert course.learning_rate_at(steps) == 0


def test_fewer_tokens_than_a_step_has_are_refused():
    with pytest.raises(OptionError, match="max_trained_tokens 59 is less than the 60 of one step"):
        schedule(max_trained_tokens=59, per_device_train_batch_size=4)


def test_the_tokens_trained_are_those_of_the_budget(corpus):
    options = {name: value for name, value in SMALL.items() if name != "num_train_epochs"}
    run = clm.train(backend="bigram", train_file=corpus, **options, max_trained_tokens=1000)
    assert (run.tokens_trained, run.steps) == (16 * 60, 16)
    assert [line["learning_rate"] for line in run.history if "loss" in line][-1] > 0


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--max-trained-tokens", "9", "--max-steps", "3"], "max_trained_tokens 9 has no effect with max_steps 3"),
        (["--max-trained-tokens", "9", "--max-steps", "3"], "give --max-steps -1, or leave this option out"),
        (["--max-steps", "3", "--max-trained-tokens", "9"], "leave max_steps out, or give --max-trained-tokens none"),
        (["--max-trained-tokens", "1000", "--num-train-epochs", "2"], "num_train_epochs 2 has no effect with max_tra"),
        (["--max-trained-tokens", "0"], "max_trained_tokens must be at least 1"),
        (["--max-train-time", "1h30"], "max_train_time must be a time, such as 8h, 90m, 45s, 1h30m"),
        (["--max-train-time", "0s"], "max_train_time must be a time"),
        (["--max-train-time", "inf"], "max_train_time must be a time"),
        (["--max-train-time=-5m"], "max_train_time must be a time"),
        (["--max-train-time", "-1h"], "max_train_time must be a time, such as 8h"),
        (["--max-train-time", "30:00"], "1:30:00 (hours, minutes, seconds), or a number of seconds, not '30:00'"),
        (["--max-train-time", "1:75:00"], "max_train_time must be a time"),
        (["--max-train-time", "0:00:00"], "max_train_time must be a time"),
    ],
)
def test_budgets_that_cannot_be_are_refused(refused, corpus, argv, says):
    model = ["--model-type", "gpt2", "--tokenizer-name", "sample", "--output-dir", "output", "--block-size", "16"]
    assert says in refused("--backend", "bigram", "train", "--train-file", str(corpus), *model, *argv)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *[("8h", 28800), ("90m", 5400), ("45s", 45), ("1h30m", 5400), ("1d 2h", 93600), ("1.5h", 5400), ("20", 20)],
        *[("1:30:05", 5405), ("00:00:07", 7), ("48:00:00", 172800), ("1-12:00:00", 129600)],
    ],
)
def test_a_time_is_written_as_people_write_it(text, expected):
    assert (seconds(text), duration(text)) == (expected, None)


OPTIONS = {
    "output_dir": "run",
    "max_steps": 4,
    "logging_steps": 2,
    "resume_from_checkpoint": "auto",
    "eval_strategy": "steps",
    "eval_steps": 2,
    "save_strategy": "no",
}


def test_a_training_whose_time_is_up_goes_on_with_the_same_command_as_if_it_had_not_been(train, tmp_path):
    parts = [train(**OPTIONS, max_train_time=MOMENT, save_on_signal=False) for _ in range(5)]
    assert [(part.steps, part.stopped_by) for part in parts[:4]] == [(1, "time"), (2, "time"), (3, "time"), (4, None)]
    whole = train(**{**OPTIONS, "output_dir": "whole"})
    assert (parts[4].after, parts[4].stopped_by) == (whole.after, None)
    assert history(tmp_path / "run") == history(tmp_path / "whole")
    same = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("run", "whole")]
    assert same[0] == same[1]


def test_a_training_whose_time_is_up_leaves_the_model_of_its_last_step(train, tmp_path):
    train(**OPTIONS, max_train_time=MOMENT)
    run = tmp_path / "run"
    assert json.loads((run / "results.json").read_text())["stopped_by"] == "time"
    assert (run / "model.safetensors").read_bytes() == (run / "checkpoint-1" / "model.safetensors").read_bytes()


def test_the_summary_says_how_to_score_a_model_whose_time_was_up_between_two_evaluations(train):
    run = train(**OPTIONS, max_train_time=MOMENT)
    said = of_training(TrainConfig(), run, None)
    assert run.after is None
    assert "perplexity  not known after step 1, as the time was up between two evaluations; before training: " in said
    assert "to score the model: clm --backend bigram evaluate --model-name-or-path run" in said


def test_a_person_comes_before_the_clock(tmp_path):
    stop = Stop(tmp_path / "stop", saves=False)
    stop.give_time(0.0)
    assert (stop.requested, stop.ending, stop.keeps_state) == (True, "time", True)
    (tmp_path / "stop").touch()
    assert (stop.requested, stop.ending, stop.keeps_state) == (True, None, False)
    stop.ask(signal.SIGTERM)
    assert (stop.ending, stop.signum) == (None, signal.SIGTERM)


def test_processes_whose_time_is_up_stop_together_but_not_after_the_last_step():
    one, other = Stop(together=True), Stop(together=True)
    one.give_time(0.0)
    assert not one.requested
    for stop in (one, other):
        stop.agree(max(one.wish, other.wish))
    assert (one.ending, other.ending) == ("time", "time")
    other.give_time(None)
    assert not other.requested
