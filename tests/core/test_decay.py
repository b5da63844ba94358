"""What decays: matrices that are no biases."""

import pytest

from clm_core.models.decay import decays


@pytest.mark.parametrize(
    ("name", "dimensions", "expected"),
    [
        ("transformer.wte.weight", 2, True),
        ("model.layers.0.mlp.experts.gate_up_proj", 3, True),
        ("roberta_prelayernorm.encoder.layer.0.output.dense.weight", 2, True),
        ("transformer.layer.0.rel_attn.seg_embed", 3, True),
        ("transformer.layer.0.rel_attn.r_w_bias", 2, False),
        ("model.layers.0.mlp.experts.gate_up_proj_bias", 2, False),
        ("transformer.h.0.ln_1.weight", 1, False),
        ("lm_head.bias", 1, False),
        ("model.scale", 0, False),
        ("bias_network.weight", 2, True),
    ],
)
def test_matrices_decay_and_norms_and_biases_do_not(name, dimensions, expected):
    assert decays(name, dimensions) is expected
