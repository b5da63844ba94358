"""What docs/backends.md tells an author is so: its calls exist, and its training runs and resumes."""

import importlib
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_floors import CONTRACT

from clm_core import backend
from clm_core.backend import Backend, Evaluated, NoOptions, Saved, Score, StepDone
from clm_core.testing import VOCABULARY, training_job

PAGE = (Path(__file__).parents[2] / "docs" / "backends.md").read_text(encoding="utf-8")
TABLE = "transformer.wte.weight"
NAMES = {name for text in (PAGE, backend.__doc__) for name in re.findall(r"\bclm_core(?:\.\w+)+", text)}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_what_an_author_is_told_to_call_is_there(name):
    module, _, attribute = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        assert callable(getattr(importlib.import_module(module), attribute))


def test_an_author_is_told_all_that_a_backend_declares():
    names = [*Backend.__annotations__, *vars(Backend)]
    assert [name for name in names if not name.startswith("_") and not re.search(rf"`{name}\b", PAGE)] == []


def test_the_page_lists_what_a_backend_may_import():
    section = PAGE.partition("## What it may import")[2].partition("\n## ")[0]
    rows = "".join(re.findall(r"^\|.*\n", section, re.MULTILINE))
    assert sorted(re.findall(r"`clm_core\.([\w.]+)`", rows)) == sorted(CONTRACT)


def token_losses(table, blocks):
    """The loss of each predicted token of a model that looks at the token before alone, and its gradient's softmax."""
    shares = np.exp(table[blocks[:, :-1]])
    shares /= shares.sum(-1, keepdims=True)
    chosen = np.take_along_axis(shares, blocks[:, 1:, None], -1)
    np.put_along_axis(shares, blocks[:, 1:, None], chosen - 1, -1)
    return -np.log(chosen), shares


def loss_and_gradient(weights, batches):
    blocks = np.concatenate(batches).astype(np.int64)
    losses, parts = token_losses(weights[TABLE], blocks)
    gradient = np.zeros_like(weights[TABLE])
    np.add.at(gradient, blocks[:, :-1], parts / losses.size)
    return float(losses.mean()), {TABLE: gradient}


def score(weights, blocks):
    losses, _ = token_losses(weights[TABLE], blocks.astype(np.int64))
    return Score(loss_sum=float(losses.sum()), correct=0, tokens=losses.size)


FRAMEWORK = {
    "loss_and_gradient": loss_and_gradient,
    "score": score,
    "SHAPES": {TABLE: (VOCABULARY, VOCABULARY)},
}


@pytest.fixture
def train(tmp_path):
    """Train with the code of the page; returns the events and the weights."""
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "def train" in block)
    exec(code, functions := dict(FRAMEWORK))
    own = SimpleNamespace(name="page", options=NoOptions)

    def run(name, **options):
        events = []
        job = training_job(own, tmp_path / name, report=events.append, save_strategy="steps", save_steps=3, **options)
        functions["train"](own, job)
        return events, load_file(job.model_dir / "model.safetensors")[TABLE]

    return run


def test_the_training_of_the_page_lowers_the_loss_and_resumes(train, tmp_path):
    whole, weights = train("whole", max_steps=8, learning_rate=0.3)
    first, *_, last = [event.score.loss for event in whole if isinstance(event, Evaluated)]
    assert last < first - 0.5
    assert [event.step for event in whole if isinstance(event, Saved)] == [3, 6, 8]
    rest, again = train("rest", max_steps=8, learning_rate=0.3, resume_from=tmp_path / "whole" / "checkpoint-6")
    assert [event for event in whole if isinstance(event, StepDone)][6:] == [
        event for event in rest if isinstance(event, StepDone)
    ]
    np.testing.assert_array_equal(again, weights)
