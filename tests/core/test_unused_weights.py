"""What of a weights file a model may leave unused, and what not."""

import numpy as np
import pytest
from transformers import GPT2Config

from clm_core.backend import Model
from clm_core.errors import ModelError, OptionError
from clm_core.models.unused_weights import check_unused, is_mask

EMBEDDINGS = np.arange(12, dtype=np.float32).reshape(4, 3)
MASK = np.tril(np.ones((1, 1, 4, 4), np.uint8))


def check(tensors, **options):
    model = Model(name_or_path="folder", revision="main", architecture=GPT2Config(), seed=0, **options)
    check_unused(model, tensors, lambda name: tensors[name], lambda: EMBEDDINGS)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("transformer.h.0.attn.bias", MASK),
        ("h.1.attn.attention.bias", MASK.astype(bool)),
        ("transformer.h.0.attn.masked_bias", np.float32(-1e4)),
        ("model.layers.3.self_attn.rotary_emb.inv_freq", np.ones(4)),
        ("bert.embeddings.position_ids", np.arange(4)),
        ("model.decoder.embed_positions.weights", np.ones((6, 3))),
        ("bert.pooler.dense.weight", np.ones((3, 3))),
        ("cls.seq_relationship.bias", np.ones(2)),
        ("classifier.out_proj.weight", np.ones((2, 3))),
        ("v_head.summary.weight", np.ones((1, 3))),
        ("lm_head.weight", EMBEDDINGS),
        ("cls.predictions.decoder.weight", EMBEDDINGS.astype(np.float16)),
    ],
)
def test_what_real_checkpoints_have_besides_a_model_is_let_be(name, tensor):
    check({name: np.asarray(tensor)})


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.lm_head.lora_A.weight",
        "model.layers.2.mlp.up_proj.weight",
        "model.layers.0.self_attn.q_norm.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "bert.encoder.layer.0.attention.self.distance_embedding.weight",
        "transformer.h.0.attn.bias",
        "encoder.classifier.weight",
        "model.layers.0.mlp.gate_proj.weight_scale_inv",
    ],
)
def test_what_makes_another_model_is_refused_by_name_or_let_be_if_one_says_so(name):
    with pytest.raises(ModelError, match=rf"a gpt2 .* does not use: {name}; .*--ignore-unused-weights$"):
        check({name: np.ones((3, 3))})
    check({name: np.ones((3, 3))}, ignore_unused_weights=True)


def test_of_many_names_the_first_are_shown_and_the_others_counted():
    with pytest.raises(ModelError, match=r"x0, x1, x2, x3, x4 and 2 more;"):
        check({f"x{number}": np.ones(3) for number in range(7)})


@pytest.mark.parametrize("name", ["lm_head.weight", "embed_out.weight", "lm_head.decoder.weight", "lm_loss.weight"])
@pytest.mark.parametrize("tensor", [EMBEDDINGS + 1, EMBEDDINGS[:2]])
def test_an_output_layer_that_differs_from_the_embeddings_is_never_dropped(name, tensor):
    with pytest.raises(ModelError, match=f'{name} differs from the input .*"tie_word_embeddings": false'):
        check({name: tensor}, ignore_unused_weights=True)


@pytest.mark.parametrize("harm", [lambda mask: mask * 2.0, lambda mask: 1 - mask, lambda mask: mask[0]])
def test_a_mask_is_zeros_and_ones_with_nothing_above_the_diagonal(harm):
    assert is_mask(MASK)
    assert not is_mask(harm(MASK))


def test_there_is_nothing_to_ignore_in_a_model_from_scratch(train):
    with pytest.raises(OptionError, match="ignore_unused_weights has no effect without model_name_or_path"):
        train(ignore_unused_weights=True)
