"""Options reach Trainer, one process uses one device, and the environment is left as it was."""

import os

import pytest
from transformers import TrainingArguments

from clm_core.errors import OptionError
from clm_pt.arguments import own_environment, training_arguments
from clm_pt.backend import PyTorchOptions
from clm_pt.training import create_trainer, train


@pytest.fixture(autouse=True)
def environment():
    """For the tests that call `training_arguments` alone."""
    with own_environment():
        yield


@pytest.mark.parametrize("on", [True, False])
def test_torch_compile_is_passed_on(new_job, on):
    arguments = training_arguments(new_job(pt=PyTorchOptions(torch_compile=on)))
    assert arguments.torch_compile is on
    assert arguments.torch_compile_backend == ("inductor" if on else None)


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("before", [None, "fp16", "bf16"])
def test_the_precision_is_the_options_whatever_the_environment_says(new_job, monkeypatch, bf16, before):
    if before:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", before)
    assert create_trainer(new_job(bf16=bf16)).accelerator.mixed_precision == ("bf16" if bf16 else "no")


@pytest.mark.parametrize("options", [{}, {"bf16": True}])
@pytest.mark.parametrize("act", [train, create_trainer])
def test_the_environment_is_left_as_it_was(new_job, options, act):
    before = dict(os.environ)
    act(new_job(**options, max_steps=1, save_strategy="steps", save_steps=1))
    assert dict(os.environ) == before


def test_a_refusal_leaves_the_environment_as_it_was(new_job, new_model):
    before = dict(os.environ)
    with pytest.raises(Exception, match="predicts tokens"):
        train(new_job(model=new_model(n_embd=15), pt=PyTorchOptions(torch_compile=True), bf16=True))
    assert dict(os.environ) == before


def test_processes_that_the_job_does_not_know_of_are_refused(new_job, monkeypatch):
    for name, value in {
        "LOCAL_RANK": "0",
        "RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "",
        "MASTER_PORT": "",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OptionError, match="2 processes were started, and the job is for 1: give it its `world`"):
        training_arguments(new_job())


def test_one_process_of_a_launcher_is_one_process(new_job, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert training_arguments(new_job()).world_size == 1


def test_of_several_gpus_one_is_used(new_job, monkeypatch):
    construct = TrainingArguments.__post_init__

    def with_four_gpus(self):
        construct(self)
        self._n_gpu = 4

    monkeypatch.setattr(TrainingArguments, "__post_init__", with_four_gpus)
    arguments = training_arguments(new_job())
    assert (arguments.n_gpu, arguments.train_batch_size) == (1, 4)


def test_what_transformers_refuses_is_an_option_error(new_job, monkeypatch):
    def refuse(self):
        raise ValueError("no bf16 here")

    monkeypatch.setattr(TrainingArguments, "__post_init__", refuse)
    with pytest.raises(OptionError, match="transformers rejects these options: no bf16 here"):
        training_arguments(new_job(bf16=True))
