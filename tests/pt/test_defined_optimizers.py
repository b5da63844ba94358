"""Adafactor and Muon in a training: transformers' own numbers, experts as files have them, resumed bit for bit."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import Trainer

from clm_core.backend import StepDone
from clm_core.config import OptimizationOptions
from clm_core.errors import OptionError
from clm_pt.backend import PyTorchOptions
from clm_pt.callbacks import Clipping, Reporting
from clm_pt.optimizers import DefinedOptimizer
from clm_pt.trainer import ScheduledTrainer
from clm_pt.training import train

OPTIONS = {"max_steps": 6, "learning_rate": 1e-3, "weight_decay": 0.1, "warmup_steps": 2, "max_grad_norm": 0.5}
SAVING = {"save_strategy": "steps", "save_steps": 3, "save_total_limit": None}


class Plain(ScheduledTrainer):
    """A Trainer that makes its optimizer as transformers does."""

    create_optimizer = Trainer.create_optimizer


def losses(job):
    return [event.loss for event in job.report.__self__ if isinstance(event, StepDone)]


def test_adafactor_is_that_of_trainer_on_the_same_batches_and_schedule(new_job):
    found, expected = (new_job(**OPTIONS, optim="adafactor") for _ in range(2))
    train(found)
    trainer = Plain(expected)
    trainer.args.optim = "adafactor"
    for callback in (Clipping, Reporting):
        trainer.add_callback(callback(trainer))
    trainer.train()
    assert type(trainer.optimizer.optimizer).__name__ == "Adafactor"
    assert losses(found) == pytest.approx(losses(expected), rel=1e-6)


@pytest.mark.parametrize("optim", ["adafactor", "muon"])
def test_a_training_is_resumed_bit_for_bit(new_job, optim):
    whole = new_job(**OPTIONS, **SAVING, optim=optim)
    train(whole)
    rest = new_job(**OPTIONS, **SAVING, optim=optim, resume_from=whole.output_dir / "checkpoint-3")
    train(rest)
    for kept in ("optimizer.safetensors", "model.safetensors"):
        one, other = ((job.output_dir / "checkpoint-6" / kept).read_bytes() for job in (whole, rest))
        assert one == other


@pytest.mark.parametrize("optim", ["adafactor", "muon"])
def test_joined_experts_are_updated_one_by_one_as_files_have_them(optim):
    random, size = np.random.default_rng(1), (3, 8, 5)
    values, gradients = random.normal(size=(2, *size)).astype(np.float32)
    config = OptimizationOptions(optim=optim, weight_decay=0.1)

    def updated(arrays, steps):
        parameters = {name: torch.nn.Parameter(torch.tensor(array)) for name, array in arrays.items()}
        model = SimpleNamespace(named_parameters=parameters.items, config=SimpleNamespace(model_type="qwen3_moe"))
        group = {"params": list(parameters.values()), "lr": 0.1, "weight_decay": 0.1}
        optimizer = DefinedOptimizer([group], model, config)
        for name, parameter in parameters.items():
            parameter.grad = torch.tensor(steps[name])
        optimizer.step()
        return np.concatenate([parameter.detach().numpy().reshape(-1, 5) for parameter in parameters.values()])

    joined = "model.layers.0.mlp.experts.gate_up_proj"
    names = [f"model.layers.0.mlp.experts.{i}.{part}_proj.weight" for i in range(3) for part in ("gate", "up")]
    found = updated({joined: values}, {joined: gradients})
    apart = [dict(zip(names, array.reshape(6, 4, 5), strict=True)) for array in (values, gradients)]
    np.testing.assert_allclose(found, updated(*apart), rtol=0, atol=1e-7)


def test_the_guide_has_no_other_optimizer(new_job):
    with pytest.raises(OptionError, match="pt guide and optim muon cannot be combined: the guide trains with AdamW"):
        train(new_job(optim="muon", pt=PyTorchOptions(guide=True)))


def test_only_the_matrices_of_layers_have_the_state_of_muon(new_job):
    job = new_job(max_steps=1, save_strategy="epoch", optim="muon")
    train(job)
    kept = load_file(job.output_dir / "checkpoint-1" / "optimizer.safetensors")
    of_muon = {name for name in kept if name.startswith("momentum.")}
    assert of_muon == {name for name in kept if ".h." in name and "momentum" in name}
    assert {"m.transformer.wte.weight", "v.transformer.h.0.ln_1.bias"} <= kept.keys() - of_muon
