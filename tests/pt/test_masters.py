"""Weights in bfloat16 beside their float32 masters: what is computed with, what is updated, and what is written."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from shrink import shrink

from clm_core.backend import EvaluationJob, StepDone, World
from clm_core.config import EvaluateConfig
from clm_core.errors import OptionError
from clm_core.models.causality import make_causal
from clm_pt import modeling
from clm_pt.backend import PyTorchBackend, PyTorchOptions
from clm_pt.head import head_of
from clm_pt.masters import Masters, join, kept_in_float32, round_weights, split
from clm_pt.sharding import check_can_be_sharded
from clm_pt.training import create_trainer, train

HALF = {"dtype": "bfloat16"}
CHANGED = {
    "gemma2": {"final_logit_softcapping": 0.3},
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 3.0},
    "falcon_h1": {"lm_head_multiplier": 0.5},
}
OPTIONS = [
    {"optim": "muon"},
    {"optim": "adafactor"},
    {"gradient_accumulation_steps": 3},
    {"gradient_checkpointing": True},
    {"embedding_learning_rate": 1e-3},
    {"freeze": ("layers:0",)},
    {"bf16": True},
]


def losses(job):
    train(job)
    return [event.loss for event in job.report.__self__ if isinstance(event, StepDone)]


def types(model):
    return {parameter.dtype for parameter in model.parameters()}


def written(job):
    return load_file(job.model_dir / "model.safetensors")


@pytest.fixture
def stored(new_model, tmp_path):
    """A model in a folder, whose weights bfloat16 does not have."""
    modeling.save(modeling.load(new_model()), tmp_path / "stored")
    return new_model(tmp_path / "stored")


def test_weights_are_bfloat16_between_steps_and_moments_float32(new_job):
    seen = []
    job = new_job(**HALF, report=lambda event: seen.append(types(trainer.model)))
    trainer = create_trainer(job)
    trainer.train()
    assert seen == [{torch.bfloat16}] * 4
    parts = [tensor for state in trainer.optimizer.state.values() for tensor in state.values()]
    assert {tensor.dtype for tensor in parts} == {torch.float32}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_of_a_step_goes_together_with_them(new_job, options):
    rounded, half = (losses(new_job(**{**options, **it})) for it in ({"bf16": True}, HALF))
    assert half != rounded
    assert half == pytest.approx(rounded, rel=2e-3)


def test_gradients_of_several_batches_are_added_up_in_float32():
    layer = torch.nn.Linear(1, 1, bias=False)
    masters = Masters(layer, adds_up=True)
    for _ in range(257):
        layer(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
    masters.take_place()
    assert layer.weight.grad.item() == 257.0  # In bfloat16, 256 + 1 is 256.


@pytest.mark.parametrize("shape", [(), (7,), (40, 30)])
def test_a_weight_and_what_it_lacks_are_the_float32_one_bit_for_bit(shape):
    exact = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 0.02
    half, lower = split(exact)
    assert (half.dtype, lower.dtype) == (torch.bfloat16, torch.int16)
    assert torch.equal(half, exact.bfloat16())
    assert torch.equal(join(half, lower), exact)


@pytest.mark.parametrize("number", [0.0, -0.0, 1.00390625, -1.01171875, 1e-40, -3.38e38])
def test_so_are_numbers_at_the_edges(number):
    exact = torch.tensor([number])
    half, lower = split(exact)
    assert join(half, lower).view(torch.int32) == exact.view(torch.int32)
    torch.testing.assert_close(half.float(), exact, rtol=2**-8, atol=1e-40)


def test_frozen_weights_are_written_as_they_were_read(new_job, stored):
    job = new_job(model=stored, freeze=("layers:0", "embeddings"), **HALF)
    train(job)
    before, after = load_file(f"{stored.name_or_path}/model.safetensors"), written(job)
    frozen = {name for name in before if ".h.0." in name or "wte" in name}
    assert {name for name in before if torch.equal(before[name], after[name])} == frozen
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}


def test_frozen_weights_that_bfloat16_has_need_no_masters(new_job, stored):
    model = modeling.load(stored)
    round_weights(model)
    modeling.save(model.float(), f"{stored.name_or_path}-rounded")
    model = replace(stored, name_or_path=f"{stored.name_or_path}-rounded")
    masters = create_trainer(new_job(model=model, freeze=("layers:0",), **HALF)).masters
    assert set(masters._frozen.values()) == {None}


def test_the_base_of_an_adapter_is_bfloat16_alone_and_the_adapter_has_masters(new_job, stored):
    pytest.importorskip("peft")
    lora = {"model": stored, "lora_r": 2, "lora_modules_to_save": ("ln_f",)}
    trainer = create_trainer(new_job(**lora, **HALF))
    assert types(trainer.model) == {torch.bfloat16}
    assert len(trainer.masters._trained) == 2 * 2 + 2
    assert trainer.masters._frozen == {}
    rounded, half = (new_job(**lora, **it) for it in ({"bf16": True}, HALF))
    assert losses(half) == pytest.approx(losses(rounded), rel=2e-3)
    ours, others = (load_file(job.model_dir / "adapter_model.safetensors") for job in (half, rounded))
    assert all(torch.allclose(ours[name], others[name], atol=1e-2) for name in others)
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in ours.values())


def test_an_adapter_is_evaluated_in_bfloat16_with_its_base(new_job, stored):
    pytest.importorskip("peft")
    job = new_job(model=stored, lora_r=2, **HALF)
    train(job)
    trained = replace(job.model, adapter=replace(job.model.adapter, folder=str(job.model_dir)))
    assert types(modeling.load_to_use(trained, EvaluateConfig(**HALF))) == {torch.bfloat16}
    assert types(modeling.load_to_use(trained, EvaluateConfig())) == {torch.float32}


def test_logits_of_bfloat16_weights_are_close_and_others(stored, blocks):
    def logits(**options):
        job = EvaluationJob(model=stored, blocks=blocks, config=EvaluateConfig(**options), report=print)
        return PyTorchBackend().logits(job)

    exact, rounded, half = logits(), logits(bf16=True), logits(**HALF)
    assert not np.array_equal(half, rounded)
    np.testing.assert_allclose(half, exact, atol=0.05 * np.abs(exact).max())


def test_a_copy_of_tied_embeddings_is_one_in_bfloat16_too(stored):
    file = f"{stored.name_or_path}/model.safetensors"
    weights = load_file(file)
    save_file({**weights, "lm_head.weight": weights["transformer.wte.weight"].clone()}, file, {"format": "pt"})
    assert types(modeling.load_to_use(stored, EvaluateConfig(**HALF))) == {torch.bfloat16}


@pytest.mark.parametrize(("kind", "changes"), [("gpt2", {}), ("llama", {}), *CHANGED.items()])
def test_the_head_of_a_model_in_bfloat16_is_known_too(new_model, kind, changes):
    architecture = shrink(kind)
    make_causal(architecture)
    vars(architecture).update(changes)
    model = modeling.load(new_model(architecture=architecture))
    exact = head_of(model)._output
    round_weights(model)
    with modeling.precision(True):
        assert head_of(model)._output == exact


def test_what_a_class_keeps_in_float32_stays_so(new_model):
    model = modeling.load(new_model())
    model._keep_in_fp32_modules_strict = {"ln_f"}
    assert kept_in_float32(model) == ["transformer.ln_f.weight", "transformer.ln_f.bias"]
    Masters(model)
    assert model.transformer.ln_f.weight.dtype == torch.float32
    assert model.transformer.wte.weight.dtype == torch.bfloat16
    with pytest.raises(OptionError, match=r"pt fsdp: .* dtype bfloat16 leaves transformer\.ln_f\.weight in float32"):
        check_can_be_sharded(model, in_bfloat16=True)


def test_several_processes_are_told_to_cut_the_weights_up(new_job):
    with pytest.raises(OptionError, match=r"dtype bfloat16: .* give --pt-fsdp"):
        train(replace(new_job(**HALF), world=World(rank=0, size=2)))


def test_the_guide_has_float32_weights(new_job):
    with pytest.raises(OptionError, match="pt guide and dtype bfloat16 cannot be combined"):
        train(new_job(**HALF, pt=PyTorchOptions(guide=True)))
