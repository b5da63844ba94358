"""A training does what the schedule and the options say, in small steps that can be computed by hand."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback, get_scheduler

from clm_core import Schedule, TrainConfig
from clm_core.backend import BatchScored, Evaluated, Saved, StepDone
from clm_core.errors import TrainingError
from clm_pt import modeling
from clm_pt.backend import PyTorchOptions
from clm_pt.training import create_trainer, train

SCHEDULES = [("linear", 0), ("linear", 3), ("cosine", 0), ("cosine", 3), ("constant", 0), ("constant_with_warmup", 3)]


def run(job):
    """Train, and return the events."""
    train(job)
    return job.report.__self__


def losses(events):
    return [event.loss for event in events if isinstance(event, StepDone)]


def norms(events):
    return [event.grad_norm for event in events if isinstance(event, StepDone)]


def weights(job):
    return load_file(job.model_dir / "model.safetensors")


def assert_close(found, expected):
    for name, tensor in found.items():
        np.testing.assert_allclose(tensor, expected[name], rtol=0, atol=2e-6, err_msg=name)


def test_every_step_is_reported_in_order_and_the_loss_falls(new_job, blocks):
    options = {"max_steps": -1, "num_train_epochs": 2, "eval_strategy": "epoch", "save_strategy": "epoch"}
    events = run(new_job(validation=blocks[:5], **options))
    assert [e.step for e in events if isinstance(e, StepDone)] == list(range(1, 15))
    assert [e.step for e in events if isinstance(e, Evaluated)] == [0, 7, 14]
    assert [e.step for e in events if isinstance(e, Saved)] == [7, 14]
    assert [type(e) for e in events[-4:]] == [StepDone, BatchScored, Evaluated, Saved]
    assert losses(events)[-1] < losses(events)[0]


def test_the_first_loss_is_the_cross_entropy_of_the_logits(new_job, blocks):
    job = new_job(max_steps=1)
    batch = blocks[next(job.schedule.batches(0))].astype(np.int64)
    logits = modeling.load(job.model)(torch.from_numpy(batch)).logits.detach().double().numpy()[:, :-1]
    likelihoods = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -np.take_along_axis(likelihoods, batch[:, 1:, None], -1).mean()
    np.testing.assert_allclose(losses(run(job)), [expected], rtol=1e-6)


def test_a_training_is_adamw_in_a_plain_loop(new_job, by_hand):
    job = new_job(max_steps=9, weight_decay=0.3, warmup_steps=2, adam_beta2=0.9, adam_epsilon=1e-4, max_grad_norm=0.5)
    run(job)
    assert_close(weights(job), by_hand((job, 9)))


@pytest.mark.parametrize(("batch", "accumulation"), [(2, 4), (4, 2)])
def test_accumulated_batches_count_as_one(new_job, batch, accumulation):
    def train_in(batch, accumulation):
        options = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        return run(new_job(max_steps=-1, num_train_epochs=2, **options))

    whole, parts = train_in(8, 1), train_in(batch, accumulation)
    np.testing.assert_allclose(losses(parts), losses(whole), rtol=1e-6)
    np.testing.assert_allclose(norms(parts), norms(whole), rtol=1e-4)


@pytest.mark.parametrize(("kind", "warmup"), SCHEDULES)
def test_the_learning_rate_of_each_step_is_the_schedules(new_job, kind, warmup):
    class Rates(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, optimizer, **kwargs):
            found.append({group["lr"] for group in optimizer.param_groups})

    found, job = [], new_job(max_steps=9, lr_scheduler_type=kind, warmup_steps=warmup)
    trainer = create_trainer(job)
    trainer.add_callback(Rates)
    trainer.train()
    assert all(len(rates) == 1 for rates in found)
    expected = [job.schedule.learning_rate_at(step) for step in range(9)]
    np.testing.assert_allclose([rate for (rate,) in found], expected, rtol=1e-12, atol=1e-18)


def test_weights_decay_and_norms_and_biases_do_not(new_job):
    trainer = create_trainer(new_job(weight_decay=0.3))
    decayed, spared = trainer.create_optimizer().param_groups
    names = {weight: name for name, weight in trainer.model.named_parameters()}
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    assert all(
        names[weight].endswith((".bias", "ln_1.weight", "ln_2.weight", "ln_f.weight")) for weight in spared["params"]
    )
    assert all(names[weight].endswith(".weight") and ".ln_" not in names[weight] for weight in decayed["params"])
    assert len(decayed["params"]) + len(spared["params"]) == len(names)


def test_bf16_computes_differently_and_keeps_float32_weights(new_job):
    exact, rounded = new_job(), new_job(bf16=True)
    expected, found = losses(run(exact)), losses(run(rounded))
    assert found != expected
    np.testing.assert_allclose(found, expected, atol=2e-2)
    assert {tensor.dtype for tensor in weights(rounded).values()} == {torch.float32}
    assert losses(run(new_job())) == expected  # Nothing of it is left for the next training.


@pytest.mark.parametrize(
    "given", [{"gradient_checkpointing": True}, {"pt": PyTorchOptions(gradient_checkpointing=True)}], ids=["all", "pt"]
)
def test_gradient_checkpointing_computes_activations_twice_and_changes_no_loss(new_job, given):
    def count(**options):
        calls, job = [], new_job(**options)
        trainer = create_trainer(job)
        trainer.model.transformer.h[0].mlp.register_forward_pre_hook(lambda *args: calls.append(1))
        trainer.train()
        return len(calls), losses(job.report.__self__)

    (once, expected), (twice, found) = count(), count(**given)
    assert twice == 2 * once == 8
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_dropout_depends_on_the_seed_alone(new_job, new_model):
    def train_with(seed):
        return losses(run(new_job(max_steps=2, model=new_model(dropout=0.5), learning_rate=1e-12, seed=seed)))

    assert train_with(1) == train_with(1) != train_with(2)


@pytest.mark.parametrize("at", [1, 3])
def test_an_error_from_the_report_comes_out_as_it_is_and_nothing_is_saved_after_it(new_job, at):
    def refuse(event):
        if isinstance(event, StepDone) and event.step == at:
            raise error

    error = TrainingError("the loss is nan")
    job = new_job(report=refuse, save_strategy="steps", save_steps=1)
    with pytest.raises(TrainingError) as raised:
        train(job)
    assert raised.value is error
    assert len(list(job.output_dir.glob("checkpoint-*"))) == at - 1
    assert list(job.model_dir.iterdir()) == []


def test_a_loss_that_is_not_a_number_is_reported_as_such(new_job):
    events = run(new_job(max_steps=6, learning_rate=1e30, max_grad_norm=0.0, warmup_steps=0))
    assert not np.isfinite(losses(events)).all()


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("kind", ["linear", "cosine", "constant", "constant_with_warmup"])
def test_the_learning_rates_are_those_of_transformers(kind, warmup):
    warmup = 0 if kind == "constant" else warmup
    config = TrainConfig(max_steps=9, lr_scheduler_type=kind, warmup_steps=warmup, learning_rate=3e-4)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    scheduler = get_scheduler(kind, optimizer, num_warmup_steps=warmup, num_training_steps=9)
    expected = [scheduler.lr_lambdas[0](step) * config.learning_rate for step in range(9)]
    np.testing.assert_allclose(Schedule.from_config(config, blocks=99).learning_rates(), expected, rtol=1e-15, atol=0)
