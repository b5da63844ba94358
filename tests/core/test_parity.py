"""Two backends are compared where both have something to compare, and the first place where they part is named."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from clm_bigram import BigramBackend
from safetensors.numpy import save_file
from transformers import BertConfig, GPT2Config

import clm_core as clm
from clm_core.comparison import side, table
from clm_core.comparison.compare import (
    SAME_WEIGHTS,
    TOLERANCES,
    _failure,
    _write_request,
    differences,
    without_dropout,
)
from clm_core.config import ParityConfig
from clm_core.errors import OptionError
from clm_core.options import from_arguments, from_file, resolve
from clm_core.options.resolve import ParityRequest
from clm_core.results import ParityResult
from clm_core.screen.progress import Progress
from clm_core.testing import tiny

WEIGHTS = {"wte.weight": np.ones((4, 4), np.float32), "ln_f.bias": np.zeros(4, np.float32)}


@pytest.fixture
def compare(tmp_path):
    """Compare two sides of which the second differs as told; the first has losses 4, 3 and 2."""

    def write(name, losses=(4.0, 3.0, 2.0), norms=(1.0, 1.0, 1.0), evaluation=4.5, weights=WEIGHTS, logits=1.0):
        (tmp_path / name / "checkpoint-2").mkdir(parents=True)
        save_file(weights, tmp_path / name / "checkpoint-2" / "model.safetensors")
        np.save(tmp_path / name / "logits-0.npy", np.full((1, 2, 3), logits, np.float32))
        steps = [{"step": i + 1, "loss": losses[i], "grad_norm": norms[i]} for i in range(3)]
        return {"steps": steps, "evaluations": [{"step": 0, "loss": evaluation}], "versions": {"clm": "1"}}

    def run(factor=1.0, **changes):
        records = [write("one"), write("other", **changes)]
        return list(differences(tmp_path, ["one", "other"], records, factor))

    return run


def first_parted(found):
    return next((it for it in found if not it.tolerated), None)


def test_equal_sides_agree_in_everything_in_the_order_of_the_training(compare):
    found = compare()
    order = [(it.step, it.quantity) for it in found]
    step = [(1, "loss"), (1, "gradient norm")]
    assert order[:6] == [(0, "logits"), (0, "evaluation loss"), *step, (2, "loss"), (2, "gradient norm")]
    assert order[6:] == [(2, "weights"), (3, "loss"), (3, "gradient norm")]
    assert {it.relative for it in found} == {0.0}


@pytest.mark.parametrize(
    ("changes", "step", "quantity"),
    [
        ({"losses": (4.0, 3.0, 2.1)}, 3, "loss"),
        ({"losses": (4.0, float("nan"), 2.1)}, 2, "loss"),
        ({"norms": (1.0, 1.1, 1.0)}, 2, "gradient norm"),
        ({"evaluation": 4.6, "losses": (5.0, 3.0, 2.0)}, 0, "evaluation loss"),
        ({"logits": 1.1}, 0, "logits"),
        ({"weights": {**WEIGHTS, "ln_f.bias": np.ones(4, np.float32)}}, 2, "weights"),
    ],
)
def test_the_first_difference_that_is_not_tolerated_is_found(compare, changes, step, quantity):
    parted = first_parted(compare(**changes))
    assert (parted.step, parted.quantity) == (step, quantity)


def test_the_tensor_that_differs_most_is_named(compare):
    assert "ln_f.bias" in first_parted(compare(weights={**WEIGHTS, "ln_f.bias": np.ones(4, np.float32)})).where


def test_a_tensor_that_one_side_lacks_is_named(tmp_path, compare):
    parted = first_parted(compare(weights={"wte.weight": WEIGHTS["wte.weight"]}))
    assert parted.relative == float("inf")
    assert parted.where == "only one side has ln_f.bias"


def test_a_norm_that_a_side_does_not_report_is_not_compared(compare):
    assert first_parted(compare(norms=(None, None, None))) is None


@pytest.mark.parametrize(("factor", "agree"), [(1.0, False), (100.0, True)])
def test_more_can_be_tolerated(compare, factor, agree):
    assert (first_parted(compare(factor, losses=(4.0, 3.0, 2.001))) is None) == agree


def test_the_last_line_says_where_and_how_far_they_part(compare):
    found = compare(losses=(4.0, 3.003, 2.0))
    result = ParityResult(
        backends=("one", "other"),
        versions={"one": {"clm": "1"}, "other": {"clm": "1"}},
        steps=3,
        dropout={},
        losses={},
        differences=tuple(found),
        parted=first_parted(found),
        output_dir=None,
    )
    text = table.of_parity(result)
    expected = (
        "one and other diverge at step 2, in the loss: 3 and 3.003: "
        "the relative difference is 1.0e-03, the tolerance 2e-05"
    )
    assert text.splitlines()[-1] == expected
    assert json.loads(result.to_json())["parted"]["step"] == 2


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        (GPT2Config(resid_pdrop=0.2, attn_pdrop=0.0), {"resid_pdrop": 0.2, "embd_pdrop": 0.1}),
        (BertConfig(), {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}),
    ],
)
def test_all_dropout_is_set_to_0_and_told(architecture, expected):
    assert without_dropout(architecture) == expected
    assert without_dropout(architecture) == {}


def test_the_dropout_of_an_adapter_is_set_to_0_too_and_told(tmp_path, corpus):
    architecture = tiny.tiny_gpt2(vocab_size=2048)
    tiny.write_model(tmp_path / "base", architecture, tiny.first_weights(architecture, seed=3))
    sources = {"model_name_or_path": str(tmp_path / "base"), "tokenizer_name": "sample", "train_file": (str(corpus),)}
    config = ParityConfig(**sources, block_size=16, lora_r=2, lora_dropout=0.5)
    request = ParityRequest(config=config, backends=(WithAdapters(),) * 2, pythons={}, options={})
    assert _write_request(request, tmp_path, Progress())["lora_dropout"] == 0.5
    shared = from_file(tmp_path / side.REQUEST)
    assert (shared["lora_r"].value, "lora_dropout" in shared) == ("2", False)


NOWHERE = ("--python-pt", "/no/such/python", "--python-tf", "/no/such/python")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (
            ["--backends", "bigram", "pt", *NOWHERE],
            "backend bigram cannot be compared: bigram counts are",
        ),
        (["--backends", "pt"], "parity needs exactly two backends, got: pt; name them"),
        (["--backends", "pt", "pt"], "parity needs exactly two backends, got: pt, pt"),
        (["--backends", "pt", "tf", "--python-bigram", sys.executable, *NOWHERE], "--python-bigram: bigram is not one"),
        (["--backend", "pt"], "--backend pt: parity needs two backends"),
        (["--tolerance", "0", *NOWHERE], "tolerance must be a finite number above 0"),
        (["--resume-from-checkpoint", "x"], "unknown option --resume-from-checkpoint"),
        (["--backends", "pt", "tf", *NOWHERE], "--python-pt /no/such/python cannot be run: No such file"),
        (["--backends", "pt", "tf", "--python-pt", "/bin/false", *NOWHERE[2:]], "backend pt failed in /bin/false with"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(refused, corpus, argv, says):
    small = ["--train-file", str(corpus), "--model-type", "gpt2", "--tokenizer-name", "sample", "--block-size", "16"]
    assert says in refused("parity", *small, *argv)


def test_the_function_takes_the_same_options():
    with pytest.raises(OptionError, match=r"parity needs exactly two backends, got: pt; name them"):
        clm.parity(backends=["pt"], python={"pt": sys.executable})


class ComparableBigrams(BigramBackend):
    """The toy backend with logits; they are the same for every model."""

    incomparable = None

    def logits(self, job):
        return np.zeros((*job.blocks.shape, 8), np.float32)


class WithAdapters(ComparableBigrams):
    """One that refuses no option."""

    unsupported = {}  # noqa: RUF012


@pytest.fixture
def sides(installed):
    """Makes backends known, by whether they come first, and tells which two are compared."""

    def resolved(here, **given):
        classes = {name: type(name, (ComparableBigrams,), {"name": name, "comes_first": here[name]}) for name in here}
        installed(bigram=BigramBackend, **classes)
        return [side.name for side in resolve.parity(from_arguments(given), file=None).backends]

    return resolved


@pytest.mark.parametrize(
    ("here", "compared"),
    [
        ({"one": True, "two": True}, ["one", "two"]),
        ({"one": True, "two": False}, ["one", "two"]),
        ({"one": True, "three": True, "two": False}, ["one", "three"]),
        ({"four": False, "one": True, "three": False, "two": True}, ["one", "two"]),
    ],
)
def test_without_names_the_two_that_are_ready_are_compared_or_the_two_that_come_first(sides, here, compared):
    assert sides(here) == compared


@pytest.mark.parametrize("first", [1, 3])
def test_where_no_two_come_first_they_have_to_be_named_and_any_two_can_be(sides, first):
    here = {name: index < first for index, name in enumerate(["one", "two", "three"])}
    with pytest.raises(OptionError, match=r"exactly two backends, got: one, (three, two|two, three); name them, as"):
        sides(here)
    assert sides(here, backends=["three", "one"]) == ["three", "one"]
    assert sides(here, python={"two": "x", "three": "y"}, backends=["two", "three"]) == ["two", "three"]


def test_a_side_needs_only_its_own_backend(tmp_path, corpus):
    clm.prepare(train_file=corpus, tokenizer_name="sample", output_dir=tmp_path / "data")
    GPT2Config().save_pretrained(tmp_path / side.ARCHITECTURE)
    request = {"backends": ["not-here", "bigram"], "prepared": str(tmp_path / "data"), "block_size": 16, "max_steps": 2}
    (tmp_path / side.REQUEST).write_text(json.dumps({**request, "not-here": {"its_own_option": 3}}))
    side.run(ComparableBigrams(), tmp_path, Progress())
    record = json.loads((tmp_path / "bigram" / side.RECORD).read_text())
    assert [step["step"] for step in record["steps"]] == [1, 2]


def test_a_side_without_its_backend_says_where_it_is_missing(tmp_path):
    (tmp_path / side.REQUEST).write_text("backends: [not-here, bigram]\n")
    command = [sys.executable, "-m", "clm_core.comparison.side", "not-here", str(tmp_path)]
    reading, writing = os.pipe()  # A side ends with its standard input.
    done = subprocess.run(command, stdin=reading, capture_output=True, text=True, check=False)
    for descriptor in (reading, writing):
        os.close(descriptor)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    error = _failure("not-here", "/other/python", 2, done.stderr)
    assert str(error).startswith("backend not-here in /other/python: unknown backend 'not-here'")


def test_every_quantity_has_a_tolerance_and_a_column():
    assert set(SAME_WEIGHTS) <= set(TOLERANCES) == set(table.COLUMNS)
