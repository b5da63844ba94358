"""The loss in chunks is the loss of the logits, which do not exist at once."""

import copy
from types import SimpleNamespace

import pytest
import torch
from shrink import shrink
from transformers import CONFIG_MAPPING

from clm_core.models.causality import make_causal
from clm_pt import losses, modeling
from clm_pt.head import head_of
from clm_pt.losses import targets_of
from clm_pt.scoring import loss_and_outputs, token_loss

HEADS = ("gpt2", "llama", "bert", "xlnet", "mixtral", "mamba", "opt", "gemma3n_text")
CHANGED = {
    "gemma2": {"final_logit_softcapping": 0.3},
    "recurrent_gemma": {"logits_soft_cap": 0.3},
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 3.0},
    "falcon_h1": {"lm_head_multiplier": 0.5},
}
WITHOUT = sorted({"prophetnet", "xlm-prophetnet"} & {*CONFIG_MAPPING})  # transformers 5 has one of them.


def tiny(new_model, kind, **changes):
    architecture = shrink(kind)
    make_causal(architecture)
    vars(architecture).update(changes)
    return modeling.load(new_model(architecture=architecture)).eval()


def batch(model, rows=3, length=16):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, model.config.get_text_config().vocab_size, (rows, length), generator=generator)
    labels = ids.clone()
    labels[:, 0], labels[1, 3:9] = -100, -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, labels


def gradients(model):
    return {name: it.grad for name, it in model.named_parameters() if it.grad is not None}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(losses, "rows_of_chunk", lambda vocabulary: 7)


@pytest.mark.parametrize(("kind", "changes"), [*((kind, {}) for kind in HEADS), *CHANGED.items()])
def test_loss_and_gradients_are_those_of_the_logits(new_model, kind, changes):
    model = tiny(new_model, kind, **changes)
    other, (inputs, labels) = copy.deepcopy(model), batch(model)
    expected = token_loss(other(**inputs), labels, 50)
    expected.backward()
    found, _ = loss_and_outputs(lambda: model(**inputs), head_of(model), labels, 50)
    found.backward()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(gradients(model), gradients(other), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", WITHOUT)
def test_a_model_that_makes_its_logits_otherwise_has_no_head(new_model, kind):
    assert head_of(tiny(new_model, kind)) is None


def test_a_model_that_makes_something_unknown_of_the_products_has_no_head(new_model):
    model = tiny(new_model, "gemma2", final_logit_softcapping=5.0)
    forward = model.forward
    model.forward = lambda *args, **kwargs: SimpleNamespace(logits=forward(*args, **kwargs).logits.sin())
    assert head_of(model) is None


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_loss_may_be_multiplied(new_model, factor):
    model = tiny(new_model, "gpt2")
    inputs, labels = batch(model)
    loss, _ = loss_and_outputs(lambda: model(**inputs), head_of(model), labels)
    (loss * factor).backward()
    once = copy.deepcopy(gradients(model))
    model.zero_grad()
    (token_loss(model(**inputs), labels) * factor).backward()
    torch.testing.assert_close(once, gradients(model), rtol=1e-4, atol=1e-7)


def test_without_a_token_that_counts_loss_and_gradients_are_0(new_model):
    model = tiny(new_model, "gpt2")
    inputs, labels = batch(model)
    loss, _ = loss_and_outputs(lambda: model(**inputs), head_of(model), torch.full_like(labels, -100), 50)
    loss.backward()
    assert loss == 0.0
    found = gradients(model)
    assert found
    assert all(not it.any() for it in found.values())


def test_a_frozen_output_layer_gets_no_gradient(new_model):
    model = tiny(new_model, "llama")
    model.lm_head.requires_grad_(False)
    inputs, labels = batch(model)
    loss_and_outputs(lambda: model(**inputs), head_of(model), labels)[0].backward()
    assert model.lm_head.weight.grad is None
    assert model.model.norm.weight.grad is not None


def test_a_model_gives_logits_to_whom_calls_it(new_model):
    model = tiny(new_model, "gpt2")
    inputs, labels = batch(model)
    before = model(**inputs).logits
    head_of(model).token_losses(lambda: model(**inputs), targets_of(labels))
    torch.testing.assert_close(model(**inputs).logits, before, rtol=0.0, atol=0.0)


def test_a_copy_of_a_model_has_its_own_output_layer(new_model):
    model = tiny(new_model, "llama")
    inputs, labels = batch(model)
    head_of(model).token_losses(lambda: model(**inputs), targets_of(labels))
    copied = copy.deepcopy(model)
    torch.nn.init.zeros_(copied.lm_head.weight)
    assert not copied(**inputs).logits.any()


def test_in_bf16_the_loss_is_that_of_the_logits(new_model):
    model = tiny(new_model, "gpt2")
    inputs, labels = batch(model)
    with modeling.precision(True):
        expected = token_loss(model(**inputs), labels)
        found, _ = loss_and_outputs(lambda: model(**inputs), head_of(model), labels)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize(("vocabulary", "rows"), [(50_257, 256), (256_000, 65), (10_000_000, 16)])
def test_the_logits_of_a_chunk_fit_in_64_mib(monkeypatch, vocabulary, rows):
    monkeypatch.undo()
    with torch.device("meta"):
        layer = torch.nn.Linear(2, vocabulary)
    (first, *_) = losses._chunks(1_000, losses.Output(layer))
    assert first == slice(0, rows)
