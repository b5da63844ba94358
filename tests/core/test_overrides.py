"""`config_overrides` makes the configuration that its class makes of the fields, the same in every series."""

import re
from pathlib import Path
from typing import Any

import pytest
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedTokenizerFast

from clm_core.backend import Model
from clm_core.config import TrainConfig
from clm_core.errors import ModelError, OptionError
from clm_core.models.configurations import check_fits, new_architecture, resized
from clm_core.models.overrides import overridden_checkpoint, split
from clm_core.models.rotation import rotation


def made(tokenizer: PreTrainedTokenizerFast, overrides: str, **options: Any) -> tuple[Any, list[str]]:
    said: list[str] = []
    return new_architecture(TrainConfig(config_overrides=overrides, **options), tokenizer, said.append), said


@pytest.mark.parametrize("kind", ["llama", "mistral", "mixtral", "granite", "falcon"])
def test_heads_are_as_wide_as_the_model(kind: str, tokenizer: PreTrainedTokenizerFast) -> None:
    architecture, said = made(tokenizer, "hidden_size=64,num_attention_heads=2", model_type=kind)
    assert getattr(architecture, "head_dim", None) in (32, None)  # None is the same, where the class computes it.
    assert (architecture.hidden_size, architecture.vocab_size, said) == (64, len(tokenizer), [])


def test_a_width_of_heads_that_is_given_or_is_the_default_of_its_own_is_kept_and_said(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    sizes = "hidden_size=64,num_attention_heads=2"
    given, silent = made(tokenizer, f"{sizes},head_dim=16", model_type="mistral")
    default, said = made(tokenizer, sizes, model_type="qwen3")
    assert (given.head_dim, silent) == (16, [])
    assert (default.head_dim, said) == (
        128,
        [
            "qwen3: head_dim is 128 by default, so 2 heads are 256 wide in a model of 64; head_dim=32 makes them as "
            "wide as the model"
        ],
    )


@pytest.mark.parametrize("kind", ["gemma2", "gemma3_text", "qwen2", "olmo3", "smollm3", "llama4_text"])
def test_there_is_a_type_for_each_layer(kind: str, tokenizer: PreTrainedTokenizerFast) -> None:
    architecture, _ = made(tokenizer, "num_hidden_layers=3", model_type=kind)
    assert len(architecture.layer_types) == architecture.num_hidden_layers == 3


def test_a_configuration_keeps_what_it_sets_itself(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "mlp_bias": True}
    CONFIG_MAPPING["llama"](**sizes).save_pretrained(tmp_path)
    architecture, _ = made(tokenizer, "hidden_size=128", config_name=str(tmp_path))
    kept = {name: getattr(architecture, name) for name in sizes}
    assert kept == {**sizes, "hidden_size": 128}


def test_theta_is_the_same_option_in_every_series(tokenizer: PreTrainedTokenizerFast) -> None:
    for kind in ("llama", "olmo3"):
        architecture, _ = made(tokenizer, "rope_theta=7.0", model_type=kind)
        written = str(architecture.to_dict())
        assert "'rope_theta': 7.0" in written
        assert "'rope_theta': 500000" not in written


@pytest.mark.parametrize(
    "overrides", ["n_positions=64", "n_ctx=64", "max_position_embeddings=64", "n_ctx=64,n_positions=64"]
)
def test_a_new_gpt2_has_the_field_that_other_programs_look_for(
    overrides: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    architecture, _ = made(tokenizer, overrides, model_type="gpt2")
    assert (architecture.n_positions, architecture.n_ctx, architecture.to_dict()["n_ctx"]) == (64, 64, 64)


@pytest.mark.parametrize(
    ("kind", "overrides", "message"),
    [
        ("gpt2", "n_ctx=128,n_positions=64", "n_ctx and n_positions are the same field: give one of them"),
        ("gpt2", "n_emb=64", r"gpt2 has no field n_emb; did you mean n_embd"),
        ("gpt2", "n_embd", "'n_embd' is not of the form name=value"),
        ("gpt2", "n_layer=1.5", "n_layer is a whole number, not 1.5"),
        ("gpt2", "scale_attn_weights=maybe", "scale_attn_weights is true or false, not maybe"),
        ("llama", "rope_theta=high", "rope_theta is a number, not high"),
        ("qwen2", "sliding_window=16", "sliding_window stays None instead of 16: qwen2 derives it from other fields"),
        ("qwen2", "layer_types=full_attention", "layer_types is a list: set it in a config.json"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    kind: str, overrides: str, message: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(OptionError, match=f"config_overrides '{overrides}': {message}"):
        made(tokenizer, overrides, model_type=kind)


def changed(kind: str, overrides: str, **fields: Any) -> tuple[Any, list[str]]:
    said: list[str] = []
    made = CONFIG_MAPPING[kind](**fields)
    return overridden_checkpoint(CONFIG_MAPPING[kind].from_dict(made.to_dict()), overrides, said.append), said


def test_a_comma_within_json_ends_no_value() -> None:
    found = split('a=1, b={"x":[1,2],"y":"p,q}"},c=none')
    assert found == {"a": "1", "b": '{"x":[1,2],"y":"p,q}"}', "c": "none"}


def test_what_is_no_pair_is_an_error_that_names_the_option() -> None:
    with pytest.raises(OptionError, match=r"^config_overrides 'resid_pdrop': 'resid_pdrop' is not"):
        split("resid_pdrop")


def test_a_run_keeps_the_changes_of_its_model(train: Any) -> None:
    train(output_dir="base", max_steps=2)
    run = {"output_dir": "run", "model_name_or_path": "base", "model_type": None, "resume_from_checkpoint": "auto"}
    for steps in (2, 3):
        train(**run, config_overrides="resid_pdrop=0", max_steps=steps)
    rates = [AutoConfig.from_pretrained(name).resid_pdrop for name in ("base", "run", "run/checkpoint-3")]
    assert rates == [0.1, 0.0, 0.0]
    with pytest.raises(OptionError, match="config_overrides is scale_attn_weights=no"):
        train(**run, config_overrides="scale_attn_weights=no", max_steps=3)


def test_embeddings_are_added_for_the_ids_that_have_none_and_never_removed(tokenizer: PreTrainedTokenizerFast) -> None:
    said: list[str] = []
    small = Model(name_or_path="x", revision="main", architecture=CONFIG_MAPPING["gpt2"](vocab_size=99), seed=1)
    larger = resized(small, tokenizer, said.append)
    assert (larger.vocabulary, larger.architecture.vocab_size, small.architecture.vocab_size) == (2048, 2048, 99)
    assert resized(larger, tokenizer, said.append) is larger
    assert said == [
        "resize_embeddings: 99 -> 2,048 embeddings; each new one is the mean of the others",
        "resize_embeddings adds none: the model has 2,048 embeddings, and the tokenizer needs 2,048",
    ]


def test_each_change_of_an_existing_model_is_said() -> None:
    new, said = changed("gpt2", "resid_pdrop=0,embd_pdrop=0.1,scale_attn_weights=no")
    assert (new.resid_pdrop, new.embd_pdrop, new.scale_attn_weights) == (0.0, 0.1, False)
    assert sorted(said) == [
        "config_overrides: embd_pdrop is 0.1 already",
        "config_overrides: resid_pdrop 0.1 -> 0.0",
        "config_overrides: scale_attn_weights true -> false",
    ]


@pytest.mark.parametrize("name", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("before", [None, {"rope_type": "linear", "factor": 8.0}])
def test_a_rotation_has_the_names_of_both_series_and_keeps_its_theta(name: str, before: Any) -> None:
    new, said = changed("llama", name + '={"type":"dynamic","factor":2.0}', rope_theta=5e5, rope_scaling=before)
    wanted = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 5e5}
    assert rotation(new.to_dict()) == wanted
    assert len(said) == 1
    assert rotation(changed("llama", "rope_theta=7.0", **new.to_dict())[0].to_dict()) == {**wanted, "rope_theta": 7.0}
    assert rotation(changed("llama", name + "=null", **new.to_dict())[0].to_dict())["rope_type"] == "default"


def test_a_window_can_be_another_or_none() -> None:
    assert changed("mistral", "sliding_window=16")[0].sliding_window == 16
    assert changed("mistral", "sliding_window=null")[0].sliding_window is None
    assert changed("gemma3_text", "sliding_window=64,query_pre_attn_scalar=8")[0].sliding_window == 64


@pytest.mark.parametrize(
    ("kind", "overrides", "message"),
    [
        ("gpt2", "n_positions=64", "n_positions 1024 -> 64: the weights of the model are made for 1024: leave it out"),
        ("gpt2", "max_position_embeddings=64", "max_position_embeddings 1024 -> 64: the weights"),
        ("gpt2", "hidden_size=32", "hidden_size 768 -> 32: the weights of the model are made for 768"),
        ("gpt2", "n_layer=1", "n_layer 12 -> 1: the weights"),
        ("gpt2", "vocab_size=80", "--resize-embeddings adds what a tokenizer needs"),
        ("gpt2", "tie_word_embeddings=false", "tie_word_embeddings true -> false: the weights"),
        ("gpt2", "resid_drop=0", "gpt2 has no field resid_drop; did you mean resid_pdrop"),
        (
            "gpt2",
            'rope_scaling={"rope_type":"linear","factor":2.0}',
            "gpt2 has no field rope_scaling: it rotates nothing",
        ),
        ("llama", "head_dim=16", "head_dim 128 -> 16: the weights"),
        ("llama", "mlp_bias=true", "mlp_bias false -> true: the weights"),
        ("llama", "rope_scaling=linear", "rope_scaling is a dict"),
        (
            "llama",
            'rope_scaling={"rope_type":"linnear","factor":2.0}',
            "rope_type 'linnear' is none of default, linear",
        ),
        ("llama", 'rope_scaling={"rope_type":"linear"}', "Missing required keys in `rope_"),
        ("mistral", "sliding_window=0", "sliding_window is at least 1, not 0"),
        ("mixtral", "num_local_experts=4", "num_local_experts 8 -> 4: the weights"),
    ],
)
def test_what_an_existing_model_cannot_have_is_refused_by_name(kind: str, overrides: str, message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        changed(kind, overrides)


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("n_layer=0", "n_layer is at least 1, not 0"),
        ("num_hidden_layers=-1", "num_hidden_layers is at least 1, not -1"),
        ("n_layer=1000000", "n_layer is at most 10,000, not 1,000,000"),
        ("n_embd=0", "n_embd is at least 1, not 0"),
        ("n_head=-2", "n_head is at least 1, not -2"),
        ("n_inner=0", "n_inner is at least 1, not 0"),
        ("attn_pdrop=nan", "attn_pdrop is a number, not nan"),
        ("resid_pdrop=1.5", "resid_pdrop is a share of what is dropped, at least 0 and below 1, not 1.5"),
        ("initializer_range=-inf", "initializer_range is a number, not -inf"),
        ("layer_norm_epsilon=-1", "layer_norm_epsilon is at least 0, not -1"),
        ("model_type=llama", "model_type cannot be changed here: give it as --model-type"),
        ("num_labels=7", "num_labels cannot be changed here"),
    ],
)
def test_what_no_model_can_be_is_refused_by_name(field: str, said: str, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(OptionError, match=re.escape(said)):
        made(tokenizer, field, model_type="gpt2")


def test_a_configuration_that_no_model_has_is_refused_wherever_it_is_from(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    CONFIG_MAPPING["gpt2"](n_layer=10**6).save_pretrained(tmp_path)
    architecture, _ = made(tokenizer, "", config_name=str(tmp_path))
    with pytest.raises(ModelError, match="n_layer is at most 10,000, not 1,000,000"):
        check_fits(architecture, tokenizer, block_size=8)
