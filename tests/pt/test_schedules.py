"""Learning rates are those of transformers' own functions, at every step and with every argument."""

import warnings

import pytest
import torch
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION
from transformers.trainer_utils import SchedulerType

from clm_core import rates
from clm_core.config import TrainConfig
from clm_core.schedule import Schedule

SHAPES = ["linear", "cosine", "1-sqrt"]
CASES = [
    *(("linear", {}), ("constant", {}), ("constant_with_warmup", {})),
    *(("cosine", {}), ("cosine", {"num_cycles": 1.7})),
    *(("cosine_with_restarts", {}), ("cosine_with_restarts", {"num_cycles": 3})),
    *(("polynomial", {}), ("polynomial", {"lr_end": 1e-5, "power": 2.5})),
    *(("inverse_sqrt", {}), ("inverse_sqrt", {"timescale": 7})),
    *(("cosine_with_min_lr", {"min_lr": 1e-5}), ("cosine_with_min_lr", {"min_lr_rate": 0.1, "num_cycles": 1.5})),
    ("cosine_warmup_with_min_lr", {"min_lr": 1e-5}),
    ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.1, "warmup_lr_rate": 0.2}),
    *(("warmup_stable_decay", {"num_decay_steps": 9, "decay_type": kind, "warmup_type": kind}) for kind in SHAPES),
    ("warmup_stable_decay", {"num_decay_steps": 9, "num_stable_steps": 5, "min_lr_ratio": 0.1, "num_cycles": 1.5}),
]
NO_STEPS = ("constant", "constant_with_warmup", "inverse_sqrt")
"""Functions of transformers that do not ask for the number of steps."""


@pytest.mark.parametrize("warmup", [0, 7])
@pytest.mark.parametrize(("name", "arguments"), CASES, ids=str)
def test_the_learning_rate_of_each_step_is_that_of_transformers(name, arguments, warmup):
    warmup = 0 if name == "constant" else warmup
    text = ",".join(f"{key}={value}" for key, value in arguments.items()) or None
    given = {"lr_scheduler_type": name, "lr_scheduler_kwargs": text, "warmup_steps": warmup, "learning_rate": 3e-4}
    ours = Schedule.from_config(TrainConfig(max_steps=40, **given), blocks=100).learning_rates()
    assert ours.tolist() == pytest.approx(list(of_transformers(name, arguments, warmup)), rel=1e-12, abs=0)


def of_transformers(name, arguments, warmup):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    steps = {} if name in NO_STEPS else {"num_training_steps": 40}
    steps |= {} if name == "constant" else {"num_warmup_steps": warmup}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of two numbers of steps at once.
        scheduler = TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(name)](optimizer, **steps, **arguments)
    for _ in range(40):
        yield scheduler.get_last_lr()[0]
        optimizer.step()
        scheduler.step()


def test_each_schedule_of_transformers_is_here_or_refused_with_its_reason():
    assert {kind.value for kind in SchedulerType} <= {*rates.SCHEDULES, *rates.REFUSED}
    assert {name for name, _ in CASES} == set(rates.SCHEDULES)
