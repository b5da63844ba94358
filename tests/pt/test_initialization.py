"""The core's first weights are of the kind that transformers' PyTorch classes have of themselves."""

import pytest
import torch
from safetensors.numpy import load_file
from shrink import shrink
from transformers import AutoModelForCausalLM

from clm_core.backend import Model
from clm_core.models.causality import make_causal
from clm_core.models.file_names import IN_FILES
from clm_core.models.first_weights import ARCHITECTURES, first_weight
from clm_pt import modeling

DEVIATIONS = {"initializer_range": 0.3, "init_std": 0.2, "embed_init_std": 0.1}
PARTS = (
    *("attention_bias", "mlp_bias", "qkv_bias", "use_qkv_bias", "attention_out_bias", "bias", "use_bias"),
    *("use_qk_norm", "qk_layernorm"),
)
"""What some models have parameters for where these fields are true."""


def architecture(kind):
    config = shrink(kind)
    make_causal(config)
    # The class of StableLM cannot initialize its own norms of queries and keys in transformers 4.57.
    parts = dict.fromkeys(set(PARTS) - {"qk_layernorm" if kind == "stablelm" else ""}, True)
    # And that of OpenAI's first GPT goes by the default in transformers 5, whatever the configuration says.
    deviations = {} if kind == "openai-gpt" else DEVIATIONS
    for name, value in (deviations | parts).items():
        if hasattr(config, name):
            setattr(config, name, value)
    return config


def new(config):
    return modeling.load(Model(name_or_path=None, revision="main", architecture=config, seed=1))


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_first_weights_are_as_large_as_those_of_the_class(kind):
    config = architecture(kind)
    torch.manual_seed(0)
    usual = dict(AutoModelForCausalLM.from_config(config).named_parameters())
    for name, parameter in new(config).named_parameters():
        few = parameter.numel() ** -0.5  # The deviation of a mean, and of a deviation, of so few numbers.
        (deviation, mean), (usual_deviation, usual_mean) = map(torch.std_mean, (parameter, usual[name]))
        assert bool(deviation) == bool(usual_deviation), name
        larger = max(deviation, usual_deviation)
        assert abs(mean - usual_mean) <= 6 * few * larger, name
        assert abs(deviation - usual_deviation) <= (0.02 + 5 * few) * larger, name


@pytest.mark.parametrize("kind", sorted(IN_FILES))
def test_tensors_in_a_file_have_the_first_weights_of_their_names_there(kind, tmp_path):
    config = architecture(kind)
    modeling.save(new(config), tmp_path)
    for name, array in load_file(tmp_path / "model.safetensors").items():
        assert (array == first_weight(name, array.shape, config, seed=1)).all(), name


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_nothing_is_left_of_what_the_class_would_have_drawn(kind, monkeypatch):
    found = tensors(new(architecture(kind)))
    monkeypatch.setattr(modeling, "draws_all", lambda architecture: False)
    expected = tensors(new(architecture(kind)))
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def tensors(model):
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
