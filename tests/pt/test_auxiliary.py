"""What a model adds to the loss of the tokens is trained on as its own forward has it, and reported apart."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from shrink import shrink

from clm_core.backend import Evaluated, GenerationJob, Model, StepDone
from clm_core.config import SamplingOptions
from clm_core.errors import ModelError
from clm_pt import modeling
from clm_pt.datasets import collate
from clm_pt.generation import generate
from clm_pt.training import train

ADDING = [
    ("mixtral", {"output_router_logits": True, "router_aux_loss_coef": 0.5}),
    ("qwen2_moe", {"output_router_logits": True, "router_aux_loss_coef": 0.5}),
    ("dbrx", {"output_router_logits": True}),
    ("gpt_oss", {"output_router_logits": True, "router_aux_loss_coef": 0.5}),
    ("bamba", {"z_loss_coefficient": 0.1}),
]


def new_model(kind, **changes):
    architecture = shrink(kind)
    architecture.update(changes)
    return Model(name_or_path=None, revision="main", architecture=architecture, seed=1)


def run(job):
    """Train, and return the events."""
    train(job)
    return job.report.__self__


def steps(job):
    return [event for event in run(job) if isinstance(event, StepDone)]


def own_losses(job, batches):
    """The loss that the class computes of each batch, with gradients."""
    model = modeling.load(job.model).train()
    return model, [model(**collate(job.train[rows])).loss for rows in batches]


@pytest.mark.parametrize(("kind", "changes"), ADDING)
def test_what_is_trained_on_is_the_loss_of_the_models_own_forward(new_job, kind, changes):
    job = new_job(model=new_model(kind, **changes), max_steps=1, max_grad_norm=0.0)
    (step,) = steps(job)
    model, (own,) = own_losses(job, [next(job.schedule.batches(0))])
    own.backward()
    norm = torch.nn.utils.get_total_norm([weight.grad for weight in model.parameters() if weight.grad is not None])
    assert step.loss + step.auxiliary_loss == pytest.approx(own.item(), abs=1e-6)
    assert step.auxiliary_loss > 0.01
    assert step.grad_norm == pytest.approx(float(norm), rel=1e-5)


def test_the_loss_the_validation_and_the_weights_are_told_apart_from_it(new_job, blocks):
    events, weights = [], []
    for asked in (False, True):
        model = new_model("mixtral", output_router_logits=asked, router_aux_loss_coef=0.5)
        job = new_job(model=model, max_steps=1, validation=blocks[:5], eval_strategy="steps", eval_steps=1)
        events.append(run(job))
        weights.append(load_file(job.model_dir / "model.safetensors"))
    (plain,), (added,) = ([event for event in found if isinstance(event, StepDone)] for found in events)
    firsts = [next(event for event in found if isinstance(event, Evaluated)) for found in events]
    assert (plain.auxiliary_loss, plain.loss, firsts[0]) == (None, added.loss, firsts[1])
    assert any((weights[0][name] != tensor).any() for name, tensor in weights[1].items())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_each_batch_of_a_step_counts_by_its_tokens(new_job, checkpointing):
    model = new_model("mixtral", output_router_logits=True, router_aux_loss_coef=0.5)
    options = {"num_train_epochs": 1, "gradient_accumulation_steps": 7, "max_grad_norm": 0.0}
    job = new_job(model=model, max_steps=-1, **options, gradient_checkpointing=checkpointing)
    (step,) = steps(job)
    batches = list(job.schedule.batches(0))
    assert [len(rows) for rows in batches] == [4, 4, 4, 4, 4, 4, 3]
    trained, owns = own_losses(job, batches)
    total = sum(own * len(rows) for own, rows in zip(owns, batches, strict=True)) / 27
    total.backward()
    norm = torch.nn.utils.get_total_norm([weight.grad for weight in trained.parameters() if weight.grad is not None])
    assert step.loss + step.auxiliary_loss == pytest.approx(total.item(), abs=1e-6)
    assert step.grad_norm == pytest.approx(float(norm), rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "changes", "named"),
    [
        ("llama", {"output_router_logits": True}, "output_router_logits True"),
        ("deepseek_v2", {"aux_loss_alpha": 0.1}, "aux_loss_alpha 0.1"),
        ("qwen2", {"z_loss_coefficient": 0.1}, "z_loss_coefficient 0.1"),
        ("prophetnet", {"disable_ngram_loss": False}, "disable_ngram_loss False"),
    ],
)
def test_what_a_class_would_not_add_is_refused_by_the_name_of_the_field(new_job, kind, changes, named):
    with pytest.raises(ModelError, match=f"{named} in the configuration adds to the loss of the next token"):
        train(new_job(model=new_model(kind, **changes)))


def test_with_a_coefficient_of_zero_nothing_is_asked_for(new_job):
    model = new_model("mixtral", output_router_logits=True, router_aux_loss_coef=0.0)
    assert [step.auxiliary_loss for step in steps(new_job(model=model, max_steps=1))] == [None]


def test_it_goes_on_from_a_checkpoint_bit_for_bit(new_job):
    model = new_model("mixtral", output_router_logits=True, router_aux_loss_coef=0.5)
    options = {"model": model, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = new_job(**options)
    expected = steps(whole)
    rest = new_job(**options, resume_from=whole.output_dir / "checkpoint-2")
    assert steps(rest) == expected[2:]
    for name, tensor in load_file(whole.model_dir / "model.safetensors").items():
        np.testing.assert_array_equal(load_file(rest.model_dir / "model.safetensors")[name], tensor, err_msg=name)


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "granitemoe"])
def test_a_text_is_continued_as_without_it(kind):
    def continue_prompt(asked):
        model, config = new_model(kind, output_router_logits=asked), SamplingOptions(max_new_tokens=4)
        return generate(GenerationJob(model=model, prompt=(3, 1, 4), eos_token_ids=(), config=config))

    assert continue_prompt(True) == continue_prompt(False)
