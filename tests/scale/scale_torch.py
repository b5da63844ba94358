"""PyTorch in 1 to 4 processes, by DistributedDataParallel and FSDP2: one curve, also where their number changes."""

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.torch_workers import Case, figures, train, train_together

GPT2 = {"model_type": "gpt2", "vocab_size": 64, "n_positions": 64, "n_embd": 64, "n_layer": 2, "n_head": 2}
DROPOUT = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.1)
SIZE = {
    "architecture": {**GPT2, **dict.fromkeys(DROPOUT, 0.0), "bos_token_id": 0, "eos_token_id": 0},
    "blocks": 58,
    "length": 64,
}
"""Two epochs of eight steps, the last one of each with two blocks: with three and four processes, some have none."""

WHEN = {"eval_steps": 8, "save_steps": 12, "max_grad_norm": 0.3}
PER_DEVICE = {1: 8, 2: 4, 3: 2, 4: 2}
ENGINES = {"ddp": {}, "fsdp": {"fsdp": True}}
RESUMED = [(1, "ddp", 2, "ddp"), (2, "ddp", 1, "ddp"), (2, "ddp", 2, "fsdp"), (2, "fsdp", 1, "ddp")]


def case(name, processes, engine="ddp", *, options=(), **changes):
    given = {**WHEN, "per_device_train_batch_size": PER_DEVICE[processes], **dict(options)}
    return Case(name=name, options=given, own=ENGINES[engine], **{**SIZE, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scale")


@pytest.fixture(scope="module")
def alone(folder):
    return train(case("alone", 1), folder / "alone")


@pytest.fixture(scope="module", params=[1, 2, 3, 4])
def together(request, folder, alone):
    cases = [case(f"{engine}-{request.param}", request.param, engine) for engine in ENGINES]
    return train_together(request.param, folder / str(request.param), cases)


def assert_same(found, expected, first_step=0, *, loss=1e-6, norm=2e-6):
    for name, bound in {"loss": loss, "grad_norm": norm}.items():
        before, after = figures(expected, "StepDone", name)[first_step:], figures(found, "StepDone", name)
        print(name, max(abs(1 - one / other) for one, other in zip(after, before, strict=True)))
        assert after == pytest.approx(before, rel=bound)
    after, before = (figures(events, "Evaluated", "score") for events in (found, expected))
    for one, other in zip(after, before[len(before) - len(after) :], strict=True):
        print("score", abs(1 - one["loss_sum"] / other["loss_sum"]))
        assert one == {**other, "loss_sum": pytest.approx(other["loss_sum"], rel=1e-7)}


@pytest.mark.parametrize("engine", ENGINES)
def test_any_number_of_processes_reports_the_steps_and_scores_of_one(together, alone, engine):
    ((first, *others),) = [told for name, told in together.items() if name.startswith(engine)]
    assert len(figures(first, "StepDone", "loss")) == 16
    assert min(figures(first, "StepDone", "grad_norm")) > WHEN["max_grad_norm"]
    assert others == [first] * len(others)
    assert_same(first, alone)


@pytest.mark.parametrize(("processes", "engine", "after", "other_engine"), RESUMED)
def test_another_number_of_processes_resumes(folder, alone, processes, engine, after, other_engine):
    place = folder / f"{processes}-{engine}-{after}-{other_engine}"
    train_together(processes, place / "whole", [case("run", processes, engine)])
    checkpoint = str(place / "whole" / "run" / "checkpoint-12")
    told = train_together(after, place / "rest", [case("rest", after, other_engine, resume_from=checkpoint)])
    assert_same(told["rest"][0], alone, first_step=12)


@pytest.mark.parametrize("processes", [2, 4])
def test_two_hundred_steps_stay_together(folder, processes):
    long = {"num_train_epochs": 25, "eval_steps": 100, "save_strategy": "no"}
    one = train(case("long", 1, options=long), folder / f"long-1-for-{processes}")
    told = train_together(processes, folder / f"long-{processes}", [case("long", processes, options=long)])
    assert len(figures(one, "StepDone", "loss")) == 200
    for name, bound in {"loss": 2e-6, "grad_norm": 5e-5}.items():
        before, after = figures(one, "StepDone", name), figures(told["long"][0], "StepDone", name)
        print(name, max(abs(1 - new / old) for new, old in zip(after, before, strict=True)))
        assert after == pytest.approx(before, rel=bound)


@pytest.mark.parametrize("engine", ENGINES)
def test_with_dropout_as_many_processes_resume_bit_for_bit(folder, engine):
    architecture = {**SIZE["architecture"], **DROPOUT}
    place = folder / f"dropout-{engine}"
    run = case("run", 2, engine, architecture=architecture)
    rest = case("rest", 2, engine, architecture=architecture, resume_from=str(place / "run" / "checkpoint-12"))
    told = train_together(2, place, [run, rest])
    assert figures(told["rest"][0], "StepDone", "loss") == figures(told["run"][0], "StepDone", "loss")[12:]
    whole, resumed = (load_file(place / name / "model" / "model.safetensors") for name in ("run", "rest"))
    assert all(np.array_equal(array, resumed[name]) for name, array in whole.items())
