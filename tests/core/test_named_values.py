"""A field that names an activation, or a kind of something, is refused a name that its class does not know."""

import re

import pytest
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from clm_core.errors import OptionError
from clm_core.models.named_values import ACTIVATIONS, CHOICES, OF_ACTIVATIONS, check_name
from clm_core.models.overrides import overridden

KINDS = sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES} - {"gemma4_assistant", "musicgen", "musicgen_melody"})
"""Those that have a configuration by default."""

LEFT = [("mega", "attention_activation")]
"""What is called like an activation and is none."""


@pytest.mark.parametrize(
    ("kind", "overrides", "message"),
    [
        ("gpt2", "activation_function=blah", "activation_function is one of gelu, gelu_10, "),
        ("gpt2", "activation_function=gelu-new", "activation_function cannot be gelu-new; did you mean gelu_new"),
        ("llama", "hidden_act=silo", "hidden_act cannot be silo; did you mean silu?"),
        ("llama", "hidden_act=null", "hidden_act is one of gelu, "),
        ("openai-gpt", "afn=tanh", "afn is one of gelu, relu, silu, swish, not tanh"),
        ("big_bird", "attention_type=full", "attention_type is one of block_sparse, original_full, not full"),
        ("gpt_neo", 'attention_types=[[["glob"],24]]', "attention_types cannot be glob; did you mean global?"),
        ("recurrent_gemma", 'block_types=["mamba"]', "block_types is one of attention, recurrent, not mamba"),
        ("xlnet", "attn_type=both", "attn_type is one of bi, uni, not both"),
        ("gpt2", "attn_implementation=eager", "how attention is computed is an option of the backend"),
        ("llama", 'rope_scaling={"rope_type":"linnear","factor":2.0}', "llama3; did you mean linear?"),
    ],
)
def test_a_name_that_there_is_not_is_refused_with_those_that_there_are(kind: str, overrides: str, message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        overridden(CONFIG_MAPPING[kind](), overrides)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [("gpt2", "activation_function", "relu"), ("big_bird", "attention_type", "original_full")],
)
def test_a_name_that_there_is_is_taken(kind: str, name: str, value: str) -> None:
    assert getattr(overridden(CONFIG_MAPPING[kind](), f"{name}={value}"), name) == value


def test_an_activation_that_is_not_set_can_be_set_and_stay_as_it_is() -> None:
    for value in (None, "silu"):
        check_name("hidden_activation", "hidden_activation", None, value)
    with pytest.raises(OptionError, match=r"hidden_activation is one of gelu, .*, null, not 7"):
        check_name("hidden_activation", "hidden_activation", None, 7)


def test_every_activation_of_transformers_is_known() -> None:
    pytest.importorskip("torch")
    from transformers.activations import ACT2FN

    assert set(ACT2FN) <= set(ACTIVATIONS)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_class_has_by_default_is_known(kind: str) -> None:
    """A value that is not would leave the field without a check."""
    for name, value in vars(CONFIG_MAPPING[kind]()).items():
        is_text = isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], str))
        if not is_text or not (name in CHOICES or OF_ACTIVATIONS.search(name)) or (kind, name) in LEFT:
            continue
        check_name(name, name, value, value)
        with pytest.raises(OptionError, match=name):
            check_name(name, name, value, "no such name")
