"""First weights are a pure function, and have the distribution that they should."""

import hashlib

import numpy as np
import pytest
from transformers import GPT2Config, LlamaConfig, RoFormerConfig, XLMConfig

from clm_core.models.first_weights import PART, first_weight

GPT2 = GPT2Config(n_layer=2, initializer_range=0.5)


def draw(name="transformer.wte.weight", shape=(40, 50), architecture=GPT2, seed=1):
    return first_weight(name, shape, architecture, seed=seed)


def test_the_numbers_stay_what_they_are():
    digest = hashlib.sha256(np.round(draw(), 5).tobytes()).hexdigest()
    assert digest[:16] == "e2e76b70328d4772"


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
        ("model.embed_tokens.weight", LlamaConfig()),
        ("roformer.encoder.embed_positions.weight", RoFormerConfig()),
        ("transformer.position_embeddings.weight", XLMConfig(sinusoidal_embeddings=True)),
    ],
)
def test_an_unknown_architecture_and_computed_positions_are_left_to_the_framework(name, architecture):
    assert draw(name, architecture=architecture) is None
