"""A layout says all that a configuration says: each field is read, refused by name, or known to change nothing."""

import re
from copy import deepcopy
from typing import Any

import pytest

pytest.importorskip("keras")

from transformers import CONFIG_MAPPING, AutoConfig, GenerationConfig

from clm_core.errors import ModelError
from clm_tf.keras3 import feedforward
from clm_tf.keras3.families import COUNTS, MODEL_TYPES, fields_of, layout, layout_of_fields
from clm_tf.keras3.layout import ACTIVATIONS, INERT
from tests.keras3.plain_decoders import FULL, LAYERS, SIZES, SLIDING, WINDOW
from tests.keras3.small_decoders import fields, names
from tests.keras3.variants import VARIANTS

KINDS = sorted(MODEL_TYPES)
OF_ACTIVATIONS = ("hidden_activation", "hidden_act", "activation_function", "activation")

MADE_INTO_LAYERS = {
    *("max_window_layers", "no_rope_layer_interval", "use_sliding_window"),
    *("sliding_window_pattern", "_sliding_window_pattern"),
}
"""A configuration makes `layer_types` or `no_rope_layers` of them, where these are not given."""

WITH: dict[str, Any] = {
    "num_hidden_layers": {"layer_types": None, "no_rope_layers": None},
    "num_layers": {"attention_types": [[["local"], 2 * LAYERS]]},
}
"""What has to be changed with a field."""

OF_OTHER_LAYERS = {"sliding_window"}
"""Only layers of one type read it."""

OF_ROUTING = {"output_router_logits", "router_aux_loss_coef"}  # The loss has a part of the router, if it is asked for.
NOT_READ = {
    "bloom": {"slow_but_exact"},  # With `pretraining_tp`.
    "codegen": {"n_ctx", "n_positions"},
    "falcon": {"attention_dropout", "num_kv_heads"},  # With `alibi`, and with `new_decoder_architecture`.
    "gemma3_text": {"attn_logit_softcapping"},
    "gpt2": {"reorder_and_upcast_attn"},
    "gpt_neox": {"classifier_dropout", "is_decoder"} | {"partial_rotary_factor", "rope_theta", "rotary_emb_base"},
    "gptj": {"n_positions"},
    "mixtral": OF_ROUTING,
    "mpt": {"init_device", "max_seq_len", "verbose"},
    "olmoe": OF_ROUTING,
    "phi3": {"embd_pdrop", "original_max_position_embeddings"},
    "qwen2_moe": OF_ROUTING,
    "qwen3_moe": OF_ROUTING,
    "stablelm": {"rope_theta"},
}
"""By model type: what its class in PyTorch has, and does not read, or not unless other fields are changed too.

Of the two dimensions of a head that rotate in the small ones of two types the theta says nothing, in 4.57's words.
"""

LINEAR = {"rope_type": "linear", "factor": 4.0}
SET = {
    "attn_logit_softcapping": 0.5,
    "final_logit_softcapping": 0.5,
    "logit_scale": 0.5,
    "clip_qkv": 0.5,
    "phi3.rope_scaling": {"type": "longrope", "short_factor": [2.0] * 4, "long_factor": [3.0] * 4},
    "rope_scaling": LINEAR,
    **{key: {"type": "linear", "factor": 4.0} for key in ("olmo.rope_scaling", "olmo2.rope_scaling")},
    "use_bidirectional_attention": True,
}
"""What a field can be that is null in the small decoders, where it is no size."""

SAME = {"gemma-legacy_act", "cohere2-pattern", "exaone4-pattern"}
"""The variants that say what the plain ones say, in other words."""

REFUSED = {"bloom-exact", "mixtral-routed", "opt-no_last_norm", "stablelm-parallel"}
"""The variants with something that no layout says."""


def architecture(kind: str, **changes: Any) -> Any:
    """A small configuration of this type, some fields changed."""
    given = fields(kind) | changes
    return AutoConfig.for_model(given.pop("model_type"), **given)


def outcome(config: Any) -> Any:
    """The layout, or the sentence that refuses it."""
    try:
        return layout(config)
    except ModelError as error:
        return str(error)


def own(kind: str) -> list[str]:
    """The fields that the type's class declares, in the installed series."""
    found = architecture(kind).to_dict().keys() & CONFIG_MAPPING[kind]().to_dict().keys()
    return sorted(found - INERT - GenerationConfig().to_dict().keys())


def changed(kind: str, name: str, value: Any) -> Any:
    """Something else for a field, of its kind."""
    match value:
        case bool():
            return not value
        case None:
            return deepcopy(SET.get(f"{kind}.{name}", SET.get(name, WINDOW)))
        case float():
            return value + 0.25
        case int():
            return value // 2 if name == "num_attention_heads" else 2 * value or 2
        case str():
            return ("gelu" if value == "relu" else "relu") if name in OF_ACTIVATIONS else "nonsense"
        case [str(), *_]:
            return [FULL if SLIDING in value else SLIDING] * len(value)
        case [int(), *_]:
            return [1 - item for item in value]
        case list():
            return value[::-1] or [0]
        case {"partial_rotary_factor": part}:
            return {**value, "partial_rotary_factor": 1.0 if part == 0.5 else 0.5}
        case {"clip_qkv": None}:
            return {**value, "clip_qkv": 0.5}
        case {"type": _, **other}:
            return {**other, "type": "linear", "factor": 3.0}
    return {name: inner | LINEAR for name, inner in value.items() if isinstance(inner, dict)} or value | LINEAR


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_that_is_changed_changes_the_layout_or_is_refused_by_name(kind):
    plain, unmoved = layout(architecture(kind)), set()
    for name in own(kind):
        value = changed(kind, name, fields_of(architecture(kind))[name])
        if outcome(architecture(kind, **{name: value, **WITH.get(name, {})})) == plain:
            unmoved.add(name)
    assert unmoved <= MADE_INTO_LAYERS | OF_OTHER_LAYERS | NOT_READ.get(kind, set())


@pytest.mark.parametrize("name", [name for name in names() if VARIANTS[name]["model_type"] in MODEL_TYPES])
def test_every_variant_has_a_layout_of_its_own_or_is_refused(name):
    kind = VARIANTS[name]["model_type"]
    given = fields(name)
    found = outcome(AutoConfig.for_model(given.pop("model_type"), **given))
    assert (found == layout(architecture(kind))) == (name == kind or name in SAME)
    assert isinstance(found, str) == (name in REFUSED)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("bloom", "mpt")])  # They have no such field.
def test_an_unknown_activation_is_refused_by_its_name(kind):
    name = next(name for name in OF_ACTIVATIONS if name in architecture(kind).to_dict())
    with pytest.raises(ModelError, match=f"{kind}: {name} 'mish' in its configuration is not supported"):
        layout(architecture(kind, **{name: "mish"}))


def test_the_activations_of_layouts_are_those_that_are_computed():
    assert feedforward.ACTIVATIONS.keys() == ACTIVATIONS


@pytest.mark.parametrize(
    "given", [{"qk_scale": 0.5}, {"mlp_gate": True}, {"layer_scale": "none"}, {"sliding_window": 8}]
)
def test_a_field_that_the_type_does_not_have_is_refused_by_name(given):
    ((name, value),) = given.items()
    with pytest.raises(ModelError, match=f"model type llama: {name} {value!r} in its configuration"):
        layout(architecture("llama", **given))


@pytest.mark.parametrize(
    "given",
    [
        {"qk_scale": None, "mlp_gate": False},
        {"cache_implementation": "hybrid", "temperature": 0.7, "max_length": 30, "do_sample": True},
        {
            "initializer_range": 0.5,
            "use_cache": False,
            "eos_token_id": [5, 6],
            "pretraining_tp": 2,
            "dtype": "bfloat16",
        },
    ],
)
def test_what_says_nothing_about_the_logits_is_not_refused(given):
    assert layout(architecture("llama", **given)) == layout(architecture("llama"))


@pytest.mark.parametrize(
    ("kind", "given", "name"),
    [
        ("llama", {"num_key_value_heads": 3}, "num_key_value_heads 3"),
        ("qwen3", {"num_key_value_heads": 8}, "num_key_value_heads 8"),
        ("llama", {"pad_token_id": 128}, "pad_token_id 128"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ("llama", {"rope_scaling": {"rope_type": "proportional", "factor": 2.0}}, "rope_type 'proportional'"),
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "warp": 3}}, "rope_parameters.warp 3"),
        ("gemma", {"hidden_activation": "relu"}, "hidden_activation 'relu'"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention True"),
        ("helium", {"head_dim": 12}, "head_dim 12"),
        ("ministral", {"sliding_window": None, "layer_types": [SLIDING] * LAYERS}, "sliding_window None"),
        ("stablelm", {"qk_layernorm": True}, "qk_layernorm True"),
        ("stablelm", {"head_dim": 16}, "head_dim 16"),
        ("gemma2", {"attn_logit_softcapping": 0.0}, "attn_logit_softcapping 0.0"),
        ("stablelm", {"hidden_size": 34}, "num_attention_heads 4"),
        ("gpt2", {"n_head": 5}, "n_head 5"),
        ("llama", {"attention_dropout": 2.0}, "attention_dropout 2.0"),
        ("gpt2", {"resid_pdrop": -0.5}, "resid_pdrop -0.5"),
        ("opt", {"dropout": 1.0}, "dropout 1.0"),
    ],
)
def test_a_value_that_is_not_computed_is_refused_by_name(kind, given, name):
    with pytest.raises(ModelError, match=f"model type {kind}: {name} in its configuration is not supported"):
        layout(architecture(kind, **given))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0, 1.5])
def test_a_count_that_counts_nothing_is_refused_by_name(kind, value):
    counted = fields_of(architecture(kind))
    for name in counted.keys() & set(COUNTS):
        with pytest.raises(ModelError, match=f"model type {kind}: {name} {value!r} in its configuration"):
            layout_of_fields({**counted, name: value})
    assert len(counted.keys() & set(COUNTS)) >= 4  # Vocabulary, width, layers and heads.


@pytest.mark.parametrize(
    ("name", "value"), [("factor", "two"), ("factor", 0), ("rope_theta", -1), ("beta_fast", []), ("mscale", "x")]
)
def test_a_parameter_of_a_rotation_that_is_no_number_is_refused_by_name(name, value):
    parameters = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, FIRST: 24, name: value}
    with pytest.raises(ModelError, match=f"llama: rope_parameters.{name} {re.escape(repr(value))} in its conf"):
        layout_of_fields({**fields_of(architecture("llama")), "rope_parameters": parameters})


@pytest.mark.parametrize("factors", [{"short_factor": [2.0]}, {"long_factor": [2.0] * 5}])
def test_longrope_with_another_number_of_factors_than_pairs_is_refused(factors):
    parameters = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, **factors}
    fields = {**fields_of(architecture("llama")), "rope_parameters": {"rope_theta": 1e4, **parameters}}
    with pytest.raises(ModelError, match=f"rope_parameters.{next(iter(factors))}"):
        layout_of_fields({**fields, "original_max_position_embeddings": 32})


def test_an_unknown_type_is_refused_with_those_that_there_are():
    with pytest.raises(ModelError, match=r"model type mamba: backend keras does not have it; it has arcee, .*stablelm"):
        layout(AutoConfig.for_model("mamba"))


def test_a_configuration_without_a_field_is_refused_by_name():
    fields = fields_of(architecture("llama"))
    del fields["rms_norm_eps"]
    with pytest.raises(ModelError, match="model type llama: there is no 'rms_norm_eps' in its configuration"):
        layout_of_fields(fields)


@pytest.mark.parametrize(("pad", "row"), [(None, None), (3, 3), (0, 0), (-1, 127), (-128, 0)])
def test_a_token_for_padding_is_a_row_of_the_embeddings(pad, row):
    assert layout(architecture("llama", pad_token_id=pad)).pad == row


@pytest.mark.parametrize("kind", ["qwen2", "phi3", "smollm3", "olmo", "olmo2", "olmo3", "granite", "cohere", "exaone4"])
def test_a_head_size_is_heeded_that_only_the_model_class_knows_of(kind):
    assert layout(architecture(kind, head_dim=16)).head_size == 16


GIVEN = {"model_type": "llama", **SIZES, "tie_word_embeddings": False, "rms_norm_eps": 1e-6, "mlp_bias": False}
FIRST = "original_max_position_embeddings"
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
YARN = {"rope_type": "yarn", "factor": 2.0, FIRST: 24}


@pytest.mark.parametrize(
    ("of_4", "of_5"),
    [
        ({}, {}),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, {"rope_type": "linear", "factor": 2.0}),
        ({"rope_scaling": YARN}, YARN),
        ({"rope_scaling": LONG, FIRST: 24}, {**LONG, FIRST: 24, "factor": 4.0}),
        ({"rope_scaling": LONG | {"factor": 2.0}}, {**LONG, FIRST: 96, "factor": 2.0}),
    ],
)
def test_both_series_words_for_a_rotation_mean_the_same(of_4, of_5):
    newer = {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, **of_5}}
    assert layout_of_fields({**GIVEN, "rope_theta": 500.0, **of_4}) == layout_of_fields({**GIVEN, **newer})
