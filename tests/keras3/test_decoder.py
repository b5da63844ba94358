"""The decoder computes what PyTorch's classes compute: logits, gradients, and what dropout takes away."""

import dataclasses

import numpy as np
import pytest
from safetensors.numpy import load_file

pytest.importorskip("torch")
pytest.importorskip("keras")

import tensorflow as tf
import torch
from transformers import AutoConfig

from clm_core.backend import GenerationJob, Model
from clm_core.config import SamplingOptions
from clm_core.models.configurations import existing_model
from clm_core.testing import tiny_gpt2
from clm_tf.keras3 import attention, block, decoder, modeling, weights
from clm_tf.keras3.families import layout
from clm_tf.keras3.generation import generate
from clm_tf.keras3.layout import Layout
from tests.keras3.small_decoders import SERIES, build, fields, without_noise

PAD = 3
IDS = np.random.default_rng(11).integers(0, 128, (2, 48)).astype(np.int32)
IDS[0, [3, 20]] = IDS[1, [10, 11, 40]] = PAD

CHOSEN = [
    *("llama-biases", "gemma2-low_caps", "gemma3_text-thetas", "phi3-longrope_partial", "olmo-clipped", "olmo2"),
    *("granite-multipliers", "glm4-yarn", "cohere-biases", "exaone4-tied", "nemotron-biases", "stablelm-dynamic"),
    *("starcoder2-dropout", "phi", "gpt2-by_layer", "opt-projected_untied", "codegen", "bloom-post_norm"),
    *("falcon-alibi_six_heads", "mixtral", "qwen2_moe-mixed"),
]
"""Each says something that the others do not."""

WITH_DROPOUT = ["llama", "phi3", "seed_oss", "starcoder2", "stablelm", "gpt2", "falcon", "gpt_neox"]


def both(name, folder, **changes):
    """The model of a variant in PyTorch, and the decoder that reads its checkpoint."""
    model = build(name, **changes)
    model.save_pretrained(folder)
    return model, modeling.load(folder)


def gradients_in_files_words(model, folder):
    """By the names, and in the shapes, that its weights have in a file."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0 * parameter if parameter.grad is None else parameter.grad)
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def distance(one, other, least=0.0):
    """Of two arrays, in parts of the second one's size, if that is not less."""
    return np.linalg.norm(one - other) / max(np.linalg.norm(other), least)


@pytest.mark.parametrize("name", CHOSEN)
def test_logits_and_gradients_are_pytorchs(name, tmp_path):
    model, found = both(name, tmp_path, **without_noise(fields(name)))
    ids = torch.tensor(IDS).long()
    expected = model(ids).logits
    torch.nn.functional.cross_entropy(expected[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    expected = expected.detach().numpy()
    named = weights.named(found)
    with tf.GradientTape() as tape:
        logits = found(IDS)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(IDS[:, 1:], logits[:, :-1]))
    gradients = tape.gradient(loss, [variable.value for variable, _ in named.values()])
    assert np.abs(logits - expected).max() < 1e-5 * expected.std()
    of_pytorch = gradients_in_files_words(model, tmp_path / "gradients")
    assert of_pytorch.keys() == named.keys()
    least = 1e-4 * max(map(np.linalg.norm, of_pytorch.values()))  # Without rotation, a key's bias has none but noise.
    for (key, (_, flipped)), gradient in zip(named.items(), gradients, strict=True):
        gradient = tf.convert_to_tensor(gradient).numpy()
        assert distance(gradient.T if flipped else gradient, of_pytorch[key], least) < 1e-4, key


def scaled(inputs, p=0.5, training=True, inplace=False):
    """PyTorch's dropout, without chance."""
    return inputs * (1 - p) if training else inputs


@pytest.mark.parametrize("kind", WITH_DROPOUT)
def test_dropout_is_where_pytorch_has_it(kind, tmp_path, monkeypatch):
    """Each dropout scales by its rate here, in both, so that one in another place would be another number."""
    names = [name for name in build(kind).config.to_dict() if "drop" in name and "summary" not in name]
    rates = {name: 0.1 * i for i, name in enumerate(sorted(names), 1)}
    model, found = both(kind, tmp_path, **rates)
    monkeypatch.setattr(torch.nn.functional, "dropout", scaled)
    for module in (attention, block, decoder):
        monkeypatch.setattr(module, "drop", lambda x, rate, seed, batch: x if batch is None else x * (1 - rate))
    expected = model.train()(torch.tensor(IDS).long()).logits.detach().numpy()
    assert np.abs(found(IDS, training=True) - expected).max() < 1e-5 * expected.std()
    assert distance(found(IDS).numpy(), expected) > 0.01


LONGER = ["phi3-longrope"] if SERIES >= 5 else []
"""Phi-3 reads all of its text again where it rotates otherwise, from the 33rd token on; 4.57 goes on with its cache."""


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "cohere2", *LONGER])
def test_the_likeliest_text_is_pytorchs(name, tmp_path):
    model, _ = both(name, tmp_path)
    prompt = torch.tensor(IDS[:1, :8]).long()
    options = {"max_new_tokens": 40, "do_sample": False, "pad_token_id": PAD, "eos_token_id": None}
    expected = model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)[0, 8:].tolist()
    config, ids = SamplingOptions(max_new_tokens=40), tuple(prompt[0].tolist())
    job = GenerationJob(model=existing_model(str(tmp_path)), prompt=ids, eos_token_ids=(), config=config)
    assert generate(job) == expected


@pytest.mark.parametrize(("length", "lost"), [(8, False), (9, True)])
def test_a_position_that_a_compiled_model_does_not_have_is_not_taken_for_its_last(length, lost):
    model = modeling.load(Model(name_or_path=None, revision="main", architecture=tiny_gpt2(n_positions=8), seed=1))
    logits = tf.function(model, jit_compile=True)(tf.zeros((1, length), tf.int32))
    assert np.isnan(logits).any() == lost


def test_what_is_compared_says_each_thing_that_a_layout_can_say():
    layouts = [layout(AutoConfig.for_model(**fields(name))) for name in CHOSEN]
    names = {field.name for field in dataclasses.fields(Layout) if not field.name.endswith("dropout")}
    same = {name for name in names if len({str(getattr(each, name)) for each in layouts}) == 1}
    assert same == {"vocabulary"}
