"""The best checkpoint: found, kept, waited for, and made the model of the run, after an interruption as without one."""

import json
import shutil
from dataclasses import replace

import pytest
from clm_bigram import Bigrams
from support.folders import history, names
from support.heard import Heard

from clm_core.errors import ModelError
from clm_core.runs.best import Best

OPTIONS = {
    "output_dir": "run",
    "max_steps": 12,
    "eval_strategy": "steps",
    "eval_steps": 1,
    "save_strategy": "no",
    "logging_steps": 2,
    "save_total_limit": 1,
    "early_stopping_patience": 3,
    "resume_from_checkpoint": "auto",
}
BEST, END = 4, 7
"""The step of the lowest loss, and the one at which three evaluations in a row were not better."""


@pytest.fixture
def rising(monkeypatch):
    """A validation loss that falls until step 4 and rises from there, by what the model has counted."""
    score = Bigrams.score

    def scored(self, blocks):
        steps = (int(self.singles.sum()) - len(self.singles)) / counted
        return replace(score(self, blocks), loss_sum=score(self, blocks).tokens * (1 + abs(steps - BEST)))

    counted = 2 * 15  # Blocks of a step, and their predicted tokens.
    monkeypatch.setattr(Bigrams, "score", scored)


@pytest.fixture
def repeat(train, rising):
    return lambda **options: train(**{**OPTIONS, "per_device_train_batch_size": 2, "block_size": 16, **options})


def results(run):
    kept = json.loads((run / "results.json").read_text())
    return {name: kept[name] for name in ("steps", "before", "after", "stopped_by", "best")}


def test_a_training_ends_where_it_has_waited_for_a_better_evaluation_and_keeps_the_best_checkpoint(repeat, tmp_path):
    run = repeat()
    assert (run.steps, run.stopped_by, run.best) == (
        END,
        "early_stopping",
        {"step": BEST, "metric": "loss", "value": 1},
    )
    assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-7"]
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == weights(tmp_path / "run" / "checkpoint-7")
    assert run.after["loss"] == 4
    assert [line.get("best_step") for line in run.history if "eval_loss" in line] == [None, 1, 2, 3, 4, 4, 4, 4]


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("early", [True, False])
def test_the_best_model_is_that_of_the_run_if_asked_for(repeat, tmp_path, early):
    run = repeat(load_best_model_at_end=True, early_stopping_patience=3 if early else None)
    assert (run.steps, run.after["loss"]) == (END if early else 12, 1)
    assert weights(tmp_path / "run") == weights(tmp_path / "run" / "checkpoint-4")
    own = {"checkpoint.json", "pending_losses.json"}
    assert {*names(tmp_path / "run")} >= {*names(tmp_path / "run" / "checkpoint-4")} - own


@pytest.mark.parametrize("step", [3, 5, 7, 8])
def test_an_interrupted_run_decides_as_if_it_had_not_been(repeat, monkeypatch, tmp_path, step):
    add, steps = Bigrams.add, iter(range(step - 1))
    monkeypatch.setattr(Bigrams, "add", lambda self, it: 1 / 0 if next(steps, None) is None else add(self, it))
    whole = {"load_best_model_at_end": True}
    if step <= END:
        with pytest.raises(ZeroDivisionError):
            repeat(**whole)
    monkeypatch.setattr(Bigrams, "add", add)
    repeat(**whole)
    (tmp_path / "run" / "results.json").rename(tmp_path / "first.json")  # As if killed before it was written.
    repeat(**whole)
    repeat(**whole, output_dir="whole")
    found, expected = (
        (results(tmp_path / run), history(tmp_path / run), weights(tmp_path / run)) for run in ("run", "whole")
    )
    assert found == expected


@pytest.mark.parametrize(
    ("change", "steps"),
    [
        ({}, END),
        ({"early_stopping_patience": 2}, END),
        ({"learning_rate": None}, END),
        ({"early_stopping_patience": 4}, END + 1),
        ({"early_stopping_patience": None, "save_strategy": "steps"}, 12),
        ({"max_steps": 9}, 9),
        ({"max_steps": 20}, END + 3),
        ({"metric_for_best_model": "accuracy", "early_stopping_threshold": 1.0}, END),
    ],
    ids=str,
)
def test_a_run_that_ended_early_goes_on_if_it_would_not_have(repeat, change, steps):
    repeat()
    more = {name: value for name, value in {**change, "save_total_limit": "none"}.items() if name != "learning_rate"}
    assert repeat(**more).steps == steps


def test_a_best_checkpoint_that_is_damaged_is_named_with_the_way_out(repeat, tmp_path):
    repeat()
    (tmp_path / "run" / "checkpoint-4" / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"checkpoint-4 is damaged: model.safetensors .* --no-load-best-model-at-end"):
        repeat(load_best_model_at_end=True, early_stopping_patience=4)
    assert repeat(load_best_model_at_end=False, early_stopping_patience=4).steps == END + 1


def test_a_run_that_is_resumed_in_another_folder_takes_the_best_checkpoint_with_it(repeat, tmp_path):
    repeat(max_steps=6)
    run = repeat(resume_from_checkpoint="run/checkpoint-6", output_dir="other", load_best_model_at_end=True)
    assert (run.steps, run.best["step"], weights(tmp_path / "other")) == (
        END,
        4,
        weights(tmp_path / "run/checkpoint-4"),
    )


@pytest.mark.parametrize(("looked_for", "says"), [(True, "not there any more"), (False, "it kept no checkpoint")])
def test_a_best_checkpoint_that_is_not_there_is_said_to_be_gone_only_where_it_was_kept(
    repeat, tmp_path, looked_for, says
):
    known, heard = {"early_stopping_patience": None, "save_strategy": "steps", "save_steps": 3}, Heard()
    repeat(**known, max_steps=6, load_best_model_at_end=looked_for)
    shutil.rmtree(tmp_path / "run" / "checkpoint-4", ignore_errors=True)
    repeat(**known, max_steps=8, load_best_model_at_end=True, progress=heard)
    (said,) = [line for line in heard.lines if line.endswith("is looked for among those that follow")]
    assert says in said
    assert "run" in said


@pytest.mark.parametrize(
    ("metric", "values", "best", "waited"),
    [
        ("loss", [3.0, 2.0, 2.5, 2.0], 2, 2),
        ("perplexity", [3.0, 2.0, 1.0], 3, 0),
        ("accuracy", [0.1, 0.3, 0.2], 2, 1),
        ("loss", [3.0, 2.9, 2.8], 3, 2),  # Better, but not by more than the threshold.
        ("perplexity", [float("inf"), float("inf")], 1, 1),
    ],
)
def test_what_is_better_follows_from_the_figure(metric, values, best, waited):
    found = Best(metric, patience=9, threshold=0.15)
    for step, value in enumerate([9.0, *values]):
        found.add({"step": step, f"eval_{metric}": value})
    assert (found.step, found.waited) == (best, waited)


def test_scores_of_other_text_do_not_count():
    found = Best("loss", patience=2)
    lines = [{"step": 1, "eval_loss": 1.0}, {"step": 1, "changed": {"validation_file": ["a", "b"]}}]
    for line in [*lines, {"step": 2, "eval_loss": 3.0}]:
        found.add(line)
    assert (found.step, found.waited) == (2, 0)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--early-stopping-patience", "2", "--eval-strategy", "no"], "has no effect with eval_strategy no"),
        (["--load-best-model-at-end", "--eval-strategy", "no"], "has no effect with eval_strategy no"),
        (["--load-best-model-at-end", "--validation-split-percentage", "0"], "validation_split_percentage 0"),
        (["--early-stopping-patience", "0"], "early_stopping_patience must be at least 1, not '0'"),
        (["--early-stopping-threshold", "0.1"], "has no effect without early_stopping_patience"),
        (["--metric-for-best-model", "loss"], "without early_stopping_patience or load_best_model_at_end"),
        (["--load-best-model-at-end", "--metric-for-best-model", "f1"], "one of loss, perplexity, accuracy"),
    ],
)
def test_what_cannot_be_watched_is_refused(train_refused, argv, says):
    assert says in train_refused(*argv)


def test_prepared_data_without_a_validation_split_has_no_best(prepare, refused):
    folder = str(prepare(validation_split_percentage=0).folder)
    argv = ["--backend", "bigram", "train", "--prepared", folder, "--model-type", "gpt2", "--block-size", "16"]
    shown = refused(*argv, "--tokenizer-name", "sample", "--load-best-model-at-end", "--output-dir", "output")
    assert "load_best_model_at_end needs evaluations, and the data has no validation split" in shown
