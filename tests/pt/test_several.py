"""Several processes train as one does: the same steps and scores, whichever engine shares them out."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.torch_workers import Case, figures, train, train_together

DROPOUT = {"dropout": 0.1}
ADAPTER = {"lora_r": 2, "lora_target_modules": ("all-linear",), "lora_modules_to_save": ("ln_f",)}
HALF = {"dtype": "bfloat16"}
CASES = [
    Case(name="ddp"),
    Case(name="fsdp", own={"fsdp": True}),
    Case(name="accumulated", options={"per_device_train_batch_size": 1, "gradient_checkpointing": True}),
    Case(name="stopped", stops=(1, 2), **DROPOUT),
    Case(name="whole", **DROPOUT),
    *(
        Case(name=f"{optim} {engine}", options={"optim": optim}, own={"fsdp": engine == "fsdp"})
        for optim in ("adafactor", "muon")
        for engine in ("ddp", "fsdp")
    ),
    Case(name="bfloat16 ddp", options=HALF),
    Case(name="bfloat16 fsdp", options=HALF, own={"fsdp": True}),
    Case(name="bfloat16 adapter", options={**ADAPTER, **HALF}, own={"fsdp": True}),
    Case(name="adapter ddp", options=ADAPTER),
    Case(name="adapter fsdp", options=ADAPTER, own={"fsdp": True}),
]
"""Of the same training, except for those with dropout."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("several")


@pytest.fixture(scope="module")
def alone(folder):
    """What one process tells."""
    return train(Case(name="alone"), folder / "alone")


@pytest.fixture(scope="module")
def two(folder, alone):
    """What two processes tell, which also resume, with FSDP2, what one has begun."""
    of_one = Case(name="resumed", own={"fsdp": True}, resume_from=str(folder / "alone" / "checkpoint-6"))
    again = Case(name="again", resume_from=str(folder / "two" / "stopped" / "checkpoint-3"), **DROPOUT)
    other = Case(name="different", different=1)
    return train_together(2, folder / "two", [*CASES, of_one, again, other])


def assert_same(found, expected, first_step=0):
    for name, bound in {"loss": 1e-6, "grad_norm": 2e-6}.items():
        assert figures(found, "StepDone", name) == pytest.approx(
            figures(expected, "StepDone", name)[first_step:], rel=bound
        )
    scores, others = (figures(events, "Evaluated", "score") for events in (found, expected))
    for score, other in zip(scores, others[len(others) - len(scores) :], strict=True):
        assert score == {**other, "loss_sum": pytest.approx(other["loss_sum"], rel=1e-7)}


@pytest.mark.parametrize("name", ["ddp", "fsdp", "accumulated"])
def test_two_processes_report_the_steps_and_scores_of_one(two, alone, name):
    first, second = two[name]
    assert second == first
    assert_same(first, alone)


@pytest.mark.parametrize("optim", ["adafactor", "muon"])
def test_two_processes_update_as_one_does_by_another_optimizer(two, folder, optim):
    expected = train(Case(name=optim, options={"optim": optim}), folder / optim)
    of_one = load_file(folder / optim / "checkpoint-6" / "optimizer.safetensors")
    for engine in ("ddp", "fsdp"):
        assert_same(two[f"{optim} {engine}"][0], expected)
        of_two = load_file(folder / "two" / f"{optim} {engine}" / "checkpoint-6" / "optimizer.safetensors")
        assert of_two.keys() == of_one.keys()
        assert all(np.allclose(of_two[it], array, rtol=1e-3, atol=1e-6) for it, array in of_one.items())


def test_two_processes_train_an_adapter_as_one_does(two, folder):
    expected = train(Case(name="adapter", options=ADAPTER), folder / "adapter")
    of_one = folder / "adapter" / "checkpoint-6"
    for engine in ("ddp", "fsdp"):
        assert_same(two[f"adapter {engine}"][0], expected)
        of_two = folder / "two" / f"adapter {engine}" / "checkpoint-6"
        for file in ("adapter_model.safetensors", "optimizer.safetensors"):
            found, wanted = load_file(of_two / file), load_file(of_one / file)
            assert found.keys() == wanted.keys()
            assert all(np.allclose(found[it], array, rtol=1e-3, atol=1e-6) for it, array in wanted.items())


@pytest.mark.parametrize(("name", "options"), [("bfloat16 fsdp", HALF), ("bfloat16 adapter", {**ADAPTER, **HALF})])
def test_two_processes_have_bfloat16_weights_as_one_has(two, alone, folder, name, options):
    one = train(Case(name="half", options=options), folder / f"one {name}")
    found, expected = (figures(events, "StepDone", "loss") for events in (two[name][0], one))
    assert found == pytest.approx(expected, rel=1e-4)
    assert found != pytest.approx(figures(alone, "StepDone", "loss"), rel=1e-7)
    files = (folder / "two" / name / "model").glob("*.safetensors")
    assert {array.dtype.name for file in files for array in load_file(file).values()} == {"float32"}


def test_gradients_that_each_process_has_rounded_are_not_added_up(two):
    (kind, said), *_ = two["bfloat16 ddp"][0]
    assert kind == "OptionError"
    assert "give --pt-fsdp" in said


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors"])
def test_a_checkpoint_of_two_has_the_tensors_of_one(two, alone, folder, name, file):
    of_two, of_one = (load_file(folder / run / "checkpoint-6" / file) for run in (f"two/{name}", "alone"))
    assert {it: array.shape for it, array in of_two.items()} == {it: array.shape for it, array in of_one.items()}
    for it, array in of_two.items():
        np.testing.assert_allclose(array, of_one[it], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_only_the_process_that_leads_writes(two, folder, name):
    run = folder / "two" / name
    assert sorted(path.name for path in run.iterdir()) == ["checkpoint-6", "checkpoint-8", "model", "of-1"]
    assert sorted(path.name for path in (run / "of-1").rglob("*")) == ["model"]
    assert {path.name for path in (run / "model").iterdir()} == {
        path.name for path in (folder / "alone" / "model").iterdir()
    }
    assert json.loads((run / "model" / "config.json").read_text())["architectures"] == ["GPT2LMHeadModel"]


def test_two_resume_what_one_has_begun(two, alone):
    assert_same(two["resumed"][0], alone, first_step=6)


def test_both_end_at_the_step_at_which_one_is_asked_to(two):
    first, second = two["stopped"]
    assert second == first
    assert [kind for kind, _ in first[-3:]] == ["StepDone", "Saved", "StoppedError"]
    assert first[-2] == ["Saved", {"step": 3, "path": "checkpoint-3"}]  # The step after the one that it came in.


def test_a_training_with_dropout_is_resumed_bit_for_bit(two, folder):
    steps = figures(two["whole"][0], "StepDone", "loss")
    assert figures(two["stopped"][0], "StepDone", "loss") + figures(two["again"][0], "StepDone", "loss") == steps
    one, other = (load_file(folder / "two" / name / "model" / "model.safetensors") for name in ("whole", "again"))
    assert all(np.array_equal(array, other[it]) for it, array in one.items())


def test_processes_that_are_to_do_something_else_are_refused_in_each_of_them(two):
    first, second = two["different"]
    assert second == first
    assert first == [["OptionError", first[0][1]]]
    assert "process 1 differs from process 0 in " in first[0][1]
