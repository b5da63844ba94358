"""Quantised weights are refused by name where a backend would take their numbers as they stand."""

import json

import pytest
from transformers import GPT2Config

from clm_core.backend import Model
from clm_core.config import TokenizerOptions
from clm_core.errors import ModelError
from clm_core.models.configurations import existing_model, load_architecture
from clm_core.models.quantization import check_quantization, check_types

CONFIG = {"quant_method": "gptq", "bits": 4}


def test_a_method_that_a_backend_does_not_know_is_refused_by_name():
    architecture = GPT2Config(quantization_config=CONFIG)
    check_quantization(GPT2Config(), "mine")
    check_quantization(architecture, "mine", {"gptq"})
    with pytest.raises(ModelError, match=r"gpt2: its quantization_config .*'gptq'.* backend mine cannot read"):
        check_quantization(architecture, "mine", {"awq"})


@pytest.mark.parametrize("kind", ["I8", "U8", "F8_E4M3"])
def test_weights_of_a_type_that_needs_scales_are_refused_unless_the_configuration_explains_them(kind):
    model, explained = (
        Model(name_or_path="folder", revision="main", architecture=GPT2Config(**options), seed=0)
        for options in ({}, {"quantization_config": CONFIG})
    )
    check_types(model, [("wte.weight", "BF16"), ("ln_f.bias", "F64")])
    check_types(explained, [("wte.weight", kind)])
    with pytest.raises(ModelError, match=rf"folder: wte\.weight has type {kind}.*no quantization_config"):
        check_types(model, [("wte.weight", kind)])


def test_a_configuration_that_says_that_nothing_is_quantised_is_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 3, "quantization_config": None}))
    assert load_architecture(TokenizerOptions(model_name_or_path=str(tmp_path))).n_layer == 3


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        (["config.json"], r"adapter_config\.json: peft_type is None, and clm has LoRA alone.*merge_and_unload"),
        (["config.json", "model.safetensors"], r"has both an adapter \(adapter_config\.json\) and a model"),
    ],
)
def test_an_adapter_of_another_kind_or_beside_a_model_is_refused_rather_than_left_out(tmp_path, beside, said):
    for name in ["adapter_config.json", *beside]:
        (tmp_path / name).write_text('{"model_type": "gpt2"}')
    with pytest.raises(ModelError, match=said):
        existing_model(tmp_path)
