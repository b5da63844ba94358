"""The core's first weights are of the kind that transformers' PyTorch classes have of themselves."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from clm_core.backend import Model
from clm_core.models.causality import make_causal
from clm_core.models.first_weights import ARCHITECTURES
from clm_pt import modeling

SIZES = {
    "vocab_size": 128,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "n_positions": 64,
    "max_position_embeddings": 64,
    "rotary_dim": 16,
    "dff": 96,
    "num_key_value_heads": 2,
    "ffn_dim": 96,
    "pad_token_id": 1,
    "type_vocab_size": 16,
}


OWN = {"xlnet": {"vocab_size": 128, "d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 96}}
"""The sizes of a class that refuses some of the others."""


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_first_weights_are_as_large_as_those_of_the_class(kind):
    architecture = AutoConfig.for_model(kind, **OWN.get(kind, SIZES))
    make_causal(architecture)
    torch.manual_seed(0)
    usual = dict(AutoModelForCausalLM.from_config(architecture).named_parameters())
    found = modeling.load(Model(name_or_path=None, revision="main", architecture=architecture, seed=1))
    for name, parameter in found.named_parameters():
        few = parameter.numel() ** -0.5  # The deviation of a mean, and of a deviation, of so few numbers.
        near = 5e-3 + 3 * few * usual[name].std().item()
        torch.testing.assert_close(parameter.mean(), usual[name].mean(), rtol=0, atol=near, msg=name)
        torch.testing.assert_close(parameter.std(), usual[name].std(), rtol=0.1 + 3 * few, atol=0, msg=name)
