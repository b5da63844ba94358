"""First weights are a pure function, and have the distribution that they should."""

import hashlib

import numpy as np
import pytest
from transformers import (
    CohereConfig,
    Gemma3TextConfig,
    GPT2Config,
    GptOssConfig,
    LlamaConfig,
    MambaConfig,
    MixtralConfig,
    RoFormerConfig,
    XLMConfig,
)

from clm_core.errors import ModelError
from clm_core.models.first_weights import PART, first_weight

GPT2 = GPT2Config(n_layer=2, initializer_range=0.5)


def draw(name="transformer.wte.weight", shape=(40, 50), architecture=GPT2, seed=1):
    return first_weight(name, shape, architecture, seed=seed)


@pytest.mark.parametrize(
    ("shape", "expected"), [((40, 50), "e2e76b70328d4772"), ((2 * PART + 7, 1), "882eca303b016433")]
)
def test_the_numbers_stay_what_they_are(shape, expected):
    digest = hashlib.sha256(np.round(draw(shape=shape), 5).tobytes()).hexdigest()
    assert digest[:16] == expected


@pytest.mark.parametrize("change", [{"seed": 2}, {"name": "transformer.wpe.weight"}])
def test_another_seed_or_name_gives_other_numbers(change):
    np.testing.assert_array_equal(draw(), draw())
    assert not np.intersect1d(draw(), draw(**change)).size


def test_a_matrix_is_normal_with_the_deviation_of_the_configuration():
    numbers = draw(shape=(1000, 300)) / 0.5
    assert (numbers.dtype, numbers.shape) == (np.float32, (1000, 300))
    moments = [(numbers.astype(float) ** power).mean() for power in (1, 2, 3, 4)]
    np.testing.assert_allclose(moments, [0, 1, 0, 3], atol=0.06)
    assert np.abs(np.corrcoef(numbers[:, :2].T)[0, 1]) < 0.1


def test_a_matrix_that_is_drawn_in_parts_repeats_nothing():
    numbers = draw(shape=(PART + 7, 1))
    assert len(np.unique(numbers)) > 0.9 * len(numbers)


def test_a_norm_begins_as_the_identity_and_a_bias_at_zero():
    assert set(draw("transformer.ln_f.weight", (8,))) == {1.0}
    assert set(draw("transformer.ln_f.bias", (8,))) == {0.0}


def test_what_gpt2_adds_to_the_residual_stream_is_smaller():
    layer = draw("transformer.h.0.mlp.c_proj.weight", (200, 200))
    assert layer.std() == pytest.approx(0.5 / 2, rel=0.02)


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("backbone.embeddings.weight", MambaConfig()),
        ("roformer.encoder.embed_positions.weight", RoFormerConfig()),
        ("transformer.position_embeddings.weight", XLMConfig(sinusoidal_embeddings=True)),
    ],
)
def test_an_unknown_architecture_and_computed_positions_are_left_to_the_framework(name, architecture):
    assert draw(name, architecture=architecture) is None


def test_gemma_adds_one_to_the_weight_of_a_norm():
    assert set(draw("model.norm.weight", (8,), Gemma3TextConfig())) == {0.0}


def test_the_norm_of_each_head_is_the_identity_though_it_has_two_dimensions():
    assert set(draw("model.layers.0.self_attn.q_norm.weight", (4, 8), CohereConfig()).flat) == {1.0}


@pytest.mark.parametrize(("name", "deviation"), [("self_attn.sinks", 0.3), ("mlp.experts.down_proj_bias", 0.0)])
def test_gpt_oss_draws_its_sinks_and_no_bias_of_an_expert(name, deviation):
    numbers = draw(f"model.layers.0.{name}", (10_000,), GptOssConfig(initializer_range=0.3))
    assert numbers.std() == pytest.approx(deviation, rel=0.03)


def test_a_tensor_of_all_experts_has_the_numbers_of_each():
    mixtral, experts = MixtralConfig(), "model.layers.1.block_sparse_moe.experts"
    found = draw("model.layers.1.mlp.experts.gate_up_proj", (2, 6, 5), mixtral)
    gate, up = (draw(f"{experts}.1.{name}.weight", (3, 5), mixtral) for name in ("w1", "w3"))
    np.testing.assert_array_equal(found[1], np.concatenate([gate, up]))


@pytest.mark.parametrize("value", [None, -0.02, float("nan"), "0.02"])
def test_a_deviation_that_is_none_is_an_error_that_names_its_field(value):
    architecture = LlamaConfig()
    architecture.__dict__["initializer_range"] = value
    with pytest.raises(ModelError, match="llama: initializer_range is"):
        draw(architecture=architecture)
