"""Attention is computed as asked, or the option is rejected by its name."""

import pytest
from shrink import shrink

from clm_core.backend import StepDone
from clm_core.errors import OptionError
from clm_pt.backend import PyTorchOptions
from clm_pt.training import create_trainer, train


def trained(new_job, **own):
    job = new_job(max_steps=2, pt=PyTorchOptions(**own))
    train(job)
    losses = [event.loss for event in job.report.__self__ if isinstance(event, StepDone)]
    return losses, (job.model_dir / "config.json").read_text()


@pytest.mark.parametrize("name", ["eager", "sdpa"])
def test_it_changes_neither_the_losses_nor_what_is_saved(new_job, name):
    losses, saved = trained(new_job)
    assert trained(new_job, attn_implementation=name) == (pytest.approx(losses, rel=1e-6), saved)


@pytest.mark.parametrize("name", ["eager", "sdpa"])
def test_it_is_what_the_model_computes_with(new_job, name):
    trainer = create_trainer(new_job(pt=PyTorchOptions(attn_implementation=name)))
    assert trainer.model.config._attn_implementation == name


@pytest.mark.parametrize(
    ("name", "kind", "why"),
    [
        ("flash_attention_2", "gpt2", "installed"),
        ("flex_attention", "gpt2", "does not support"),
        ("flex_attention", "llama", "on CPU"),
        ("sdpa", "doge", "only with eager"),
        ("sdpa", "mamba", "such as sdpa or eager"),
    ],
)
def test_what_a_model_or_the_machine_cannot_do_is_rejected_by_name(new_job, new_model, name, kind, why):
    job = new_job(model=new_model(architecture=shrink(kind)), pt=PyTorchOptions(attn_implementation=name))
    with pytest.raises(OptionError, match=f"pt attn implementation {name}: a model of type {kind} .*{why}"):
        create_trainer(job)
