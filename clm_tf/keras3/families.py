"""The model types that `Decoder` computes: what each reads in its configuration, and what PyTorch calls its parts."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from clm_core.errors import ModelError
from clm_tf.keras3.layout import Fields, Layout
from clm_tf.keras3.rope import FULL, SLIDING, Rope, read_parameters, rope

Facts = dict[str, Any]
"""Fields of a `Layout`."""


def layout(architecture: Any) -> Layout:
    """The layout of a `transformers.PretrainedConfig`, as transformers 4.57 or 5 has it.

    Raises:
        ModelError: its model type is none of `MODEL_TYPES`, or a field says what is not known here.
    """
    fields = Fields(fields_of(architecture))
    found = _read(fields)
    changed = json.loads(architecture.to_json_string(use_diff=True))
    for name in sorted(fields.unread() & changed.keys()):
        if changed[name] not in (None, False):
            raise fields.refused(name, changed[name])
    return found


def fields_of(architecture: Any) -> Facts:
    """All fields of a configuration, as in a config.json that has them all."""
    found: Facts = json.loads(architecture.to_json_string(use_diff=False))
    return found


def layout_of_fields(fields: Mapping[str, Any]) -> Layout:
    """The layout of what `fields_of` returned earlier."""
    return _read(Fields(fields))


def _read(fields: Fields) -> Layout:
    kind = fields["model_type"]
    if kind not in FAMILIES:
        raise ModelError(
            f"model type {kind}: backend keras does not have it; it has {', '.join(sorted(FAMILIES))}. "
            "Use --backend pt, which has all of transformers'"
        )
    try:
        return Layout(model_type=kind, **FAMILIES[kind](fields))
    except KeyError as error:
        raise ModelError(f"model type {kind}: there is no {error} in its configuration") from error


LLAMA = {
    "embeddings": "model.embed_tokens",
    "final_norm": "model.norm",
    "head": "lm_head",
    "attention_norm": "model.layers.{}.input_layernorm",
    "query": "model.layers.{}.self_attn.q_proj",
    "key": "model.layers.{}.self_attn.k_proj",
    "value": "model.layers.{}.self_attn.v_proj",
    "output": "model.layers.{}.self_attn.o_proj",
    "feedforward_norm": "model.layers.{}.post_attention_layernorm",
    "gate": "model.layers.{}.mlp.gate_proj",
    "up": "model.layers.{}.mlp.up_proj",
    "down": "model.layers.{}.mlp.down_proj",
}
GPT2 = {
    "embeddings": "transformer.wte",
    "positions": "transformer.wpe",
    "final_norm": "transformer.ln_f",
    "head": "lm_head",
    "attention_norm": "transformer.h.{}.ln_1",
    "query_key_value": "transformer.h.{}.attn.c_attn",
    "output": "transformer.h.{}.attn.c_proj",
    "feedforward_norm": "transformer.h.{}.ln_2",
    "up": "transformer.h.{}.mlp.c_fc",
    "down": "transformer.h.{}.mlp.c_proj",
}


def _llama(fields: Fields, *, epsilon: str = "rms_norm_eps", biases: str | None = "attention_bias") -> Facts:
    """What most of today's decoders share with Llama."""
    heads, layers = fields["num_attention_heads"], fields["num_hidden_layers"]
    size = fields.get("head_dim") or fields["hidden_size"] // heads
    bias = bool(fields.get(biases)) if biases else False
    return {
        "names": LLAMA,
        "prefix": "model.",
        "vocabulary": fields["vocab_size"],
        "width": fields["hidden_size"],
        "layers": layers,
        "heads": heads,
        "key_value_heads": fields.get("num_key_value_heads") or heads,
        "head_size": size,
        "inner": fields["intermediate_size"],
        "tied": fields["tie_word_embeddings"],
        "pad": fields.get("pad_token_id"),
        "epsilon": fields[epsilon],
        "activation": fields.get("hidden_act", "silu"),
        "attention_bias": bias,
        "output_bias": bias,
        "ropes": _ropes(fields, size),
        "windows": (None,) * layers,
        "scales": (size**-0.5,) * layers,
        "attention_dropout": fields.get("attention_dropout", 0.0),
    }


def _named(facts: Facts, *without: str, **names: str) -> Facts:
    """The facts with other names of some parts of a layer, given from the layer's own name on, and without others."""
    changed = {part: f"model.layers.{{}}.{name}" for part, name in names.items()}
    return {**facts, "names": {part: name for part, name in (facts["names"] | changed).items() if part not in without}}


def _ropes(fields: Fields, size: int, *, layer_types: bool = True) -> tuple[Rope | None, ...]:
    layers, positions = fields["num_hidden_layers"], fields.get("max_position_embeddings", 0)
    kinds = (fields.get("layer_types") if layer_types else None) or [None] * layers
    by_kind = {kind: rope(read_parameters(fields, kind), size, positions, fields.refused) for kind in set(kinds)}
    return tuple(by_kind[kind] for kind in kinds)


def _windows(fields: Fields) -> tuple[int | None, ...]:
    """By `layer_types`: all layers attend to all tokens where there are none."""
    layers, window = fields["num_hidden_layers"], fields.get("sliding_window")
    kinds = fields.get("layer_types") or [FULL] * layers
    for kind in kinds:
        if kind not in (FULL, SLIDING):
            raise fields.refused("layer_types", kind)
    return tuple(window if kind == SLIDING else None for kind in kinds)


def _of_llama(fields: Fields) -> Facts:
    return {**_llama(fields), "feedforward_bias": bool(fields["mlp_bias"])}


def _of_qwen2(fields: Fields) -> Facts:
    fields.get("use_sliding_window"), fields.get("max_window_layers")  # `layer_types` says what they come to.
    return {**_llama(fields, biases=None), "attention_bias": True, "windows": _windows(fields)}


def _of_qwen3(fields: Fields) -> Facts:
    fields.get("use_sliding_window"), fields.get("max_window_layers")
    facts = {**_llama(fields), "windows": _windows(fields)}
    return _named(facts, query_norm="self_attn.q_norm", key_norm="self_attn.k_norm")


def _of_mistral(fields: Fields) -> Facts:
    window, layers = fields.get("sliding_window"), fields["num_hidden_layers"]
    return {**_llama(fields, biases=None), "windows": (window,) * layers}


def _of_gemma(fields: Fields) -> Facts:
    facts = _llama(fields)
    activation = fields.get("hidden_activation") or fields.get("hidden_act")
    return {
        **facts,
        "norm_offset": 1.0,
        "embedding_scale": math.sqrt(facts["width"]),
        "activation": "gelu_pytorch_tanh" if fields["model_type"] == "gemma" and not activation else activation,
    }


def _of_gemma2(fields: Fields) -> Facts:
    facts = {
        **_of_gemma(fields),
        "windows": _windows(fields),
        "scales": (fields["query_pre_attn_scalar"] ** -0.5,) * fields["num_hidden_layers"],
        "score_cap": fields["attn_logit_softcapping"],
        "logit_cap": fields["final_logit_softcapping"],
    }
    fields.expect("use_bidirectional_attention", None, False)
    return _named(
        facts,
        attention_output_norm="post_attention_layernorm",
        feedforward_norm="pre_feedforward_layernorm",
        feedforward_output_norm="post_feedforward_layernorm",
    )


def _of_gemma3(fields: Fields) -> Facts:
    return _named(_of_gemma2(fields), query_norm="self_attn.q_norm", key_norm="self_attn.k_norm")


def _of_phi3(fields: Fields) -> Facts:
    fields.get("embd_pdrop")  # No class of transformers uses it.
    facts = {
        **_of_mistral(fields),
        "residual_dropout": fields["resid_pdrop"],
        "feedforward_dropout": fields["resid_pdrop"],
    }
    return _named(
        facts,
        *("query", "key", "value", "gate", "up"),
        query_key_value="self_attn.qkv_proj",
        gate_up="mlp.gate_up_proj",
    )


def _of_smollm3(fields: Fields) -> Facts:
    facts = {**_of_llama(fields), "windows": _windows(fields)}
    fields.get("use_sliding_window"), fields.get("max_window_layers"), fields.get("no_rope_layer_interval")
    rotates = fields.get("no_rope_layers") or [1] * facts["layers"]
    return {**facts, "ropes": tuple(each if on else None for each, on in zip(facts["ropes"], rotates, strict=True))}


def _of_gpt2(fields: Fields) -> Facts:
    width, heads, layers = fields["n_embd"], fields["n_head"], fields["n_layer"]
    fields.get("reorder_and_upcast_attn")  # The same numbers in float32, in which scores are computed here.
    fields.expect("add_cross_attention", False)
    scale = (width // heads) ** -0.5 if fields["scale_attn_weights"] else 1.0
    by_depth = fields["scale_attn_by_inverse_layer_idx"]
    return {
        "names": GPT2,
        "prefix": "transformer.",
        "transposed": False,
        "vocabulary": fields["vocab_size"],
        "width": width,
        "layers": layers,
        "heads": heads,
        "key_value_heads": heads,
        "head_size": width // heads,
        "inner": fields["n_inner"] or 4 * width,
        "tied": fields["tie_word_embeddings"],
        "norm": "layer",
        "norm_bias": True,
        "epsilon": fields["layer_norm_epsilon"],
        "activation": fields["activation_function"],
        "attention_bias": True,
        "output_bias": True,
        "feedforward_bias": True,
        "learned_positions": fields["n_positions"],
        "ropes": (None,) * layers,
        "windows": (None,) * layers,
        "scales": tuple(scale / (i + 1 if by_depth else 1) for i in range(layers)),
        "embedding_dropout": fields["embd_pdrop"],
        "attention_dropout": fields["attn_pdrop"],
        "residual_dropout": fields["resid_pdrop"],
        "feedforward_dropout": fields["resid_pdrop"],
    }


FAMILIES: dict[str, Callable[[Fields], Facts]] = {
    "gemma": _of_gemma,
    "gemma2": _of_gemma2,
    "gemma3_text": _of_gemma3,
    "gpt2": _of_gpt2,
    "llama": _of_llama,
    "mistral": _of_mistral,
    "phi3": _of_phi3,
    "qwen2": _of_qwen2,
    "qwen3": _of_qwen3,
    "smollm3": _of_smollm3,
}
"""By model type: what its configuration says, as fields of a `Layout`."""

MODEL_TYPES = frozenset(FAMILIES)
