"""The figures of a step are read once the next one has begun, where a GPU would be waited for, and stay the same."""

import pytest
import torch
from shrink import shrink
from support.jobs import new_model

import clm_core
from clm_core.backend import Saved, StepDone
from clm_core.errors import StoppedError, TrainingError
from clm_pt import steps
from clm_pt.training import train

OPTIONS = {"max_steps": 9, "save_steps": 4, "save_strategy": "steps", "logging_steps": 3, "max_grad_norm": 0.3}


class Arrival:
    """What a GPU says of a copy, of which the CPU has nothing to say."""

    def __init__(self, device):
        self.is_recorded = False

    def record(self):
        self.is_recorded = True

    def synchronize(self):
        assert self.is_recorded


@pytest.fixture
def as_on_gpu(monkeypatch):
    """Have figures fetched as from a GPU."""

    def play():
        monkeypatch.setattr(torch, "Event", Arrival)
        monkeypatch.setattr(steps, "ON_THE_WAY", ("cpu",))

    return play


def trained(job):
    train(job)
    return job.report.__self__


def figures(events):
    return [(event.step, event.loss, event.grad_norm) for event in events if isinstance(event, StepDone)]


def test_late_figures_are_the_same_and_nothing_comes_between_a_step_and_what_is_due_after_it(new_job, as_on_gpu):
    at_once = trained(new_job(**OPTIONS))
    as_on_gpu()
    late = trained(new_job(**OPTIONS))
    assert figures(late) == figures(at_once)
    assert [event.step for event in late if isinstance(event, StepDone) and event.is_late] == [2, 5, 7]
    assert not any(event.is_late for event in at_once if isinstance(event, StepDone))
    before = [late[place - 1] for place, event in enumerate(late) if isinstance(event, Saved)]
    assert [(event.step, event.is_late) for event in before] == [(4, False), (8, False), (9, False)]


def test_what_a_model_adds_to_the_loss_is_late_too(new_job, as_on_gpu):
    architecture = shrink("mixtral")
    architecture.update({"output_router_logits": True, "router_aux_loss_coef": 0.5})
    model = new_model(architecture=architecture)
    at_once = trained(new_job(model=model, max_steps=4))
    as_on_gpu()
    late = trained(new_job(model=model, max_steps=4))
    added = [[event.auxiliary_loss for event in events if isinstance(event, StepDone)] for events in (at_once, late)]
    assert added[1] == pytest.approx(added[0], rel=1e-7)
    assert min(added[0]) > 0


@pytest.mark.parametrize(("is_before", "at"), [(True, 5), (False, 6)])
def test_a_stop_is_after_a_step_that_is_known_and_the_run_goes_on_from_there(
    is_before, at, tmp_path, as_on_gpu, monkeypatch
):
    as_on_gpu()
    whole = sample_run(tmp_path / "whole")
    report = steps.Steps.report

    def report_and_ask(self, step):
        asked = tmp_path / "run" / "stop"
        if is_before and step == 5:
            asked.touch()
        is_reported = report(self, step)
        if not is_before and step == 5:
            asked.touch()
        return is_reported

    monkeypatch.setattr(steps.Steps, "report", report_and_ask)
    with pytest.raises(StoppedError):
        sample_run(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == [f"checkpoint-{at}"]
    monkeypatch.undo()
    as_on_gpu()
    assert losses_of(sample_run(tmp_path / "run", resume_from_checkpoint="auto")) == losses_of(whole)


def sample_run(folder, **options):
    given = {"max_steps": 9, "block_size": 16, "eval_strategy": "no", "save_strategy": "steps"}
    given |= {"save_steps": 20, "logging_steps": 20}
    return clm_core.train(backend="pt", output_dir=str(folder), **{**given, **options})


def losses_of(result):
    return [line["loss"] for line in result.history if "loss" in line]


def test_a_loss_that_is_no_number_ends_the_training_before_a_checkpoint(tmp_path, as_on_gpu):
    as_on_gpu()
    with pytest.raises(TrainingError, match=r"is (nan|inf) at step"):
        sample_run(
            tmp_path / "run",
            learning_rate=1e30,
            lr_scheduler_type="constant_with_warmup",
            max_grad_norm=0.0,
            save_steps=9,
        )
    assert not list((tmp_path / "run").glob("checkpoint-*"))
