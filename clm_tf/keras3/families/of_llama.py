"""What most of today's decoders share with Llama, and those that differ little from it."""

from collections.abc import Sequence

from clm_tf.keras3.layout import Facts, Fields
from clm_tf.keras3.rope import FULL, SLIDING, Rope, read_parameters, rope

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


def like_llama(
    fields: Fields,
    *,
    epsilon: str | float = "rms_norm_eps",
    biases: str | None = "attention_bias",
    by_layer: bool = False,
    partial: bool = False,
) -> Facts:
    """What most of today's decoders share with Llama.

    Args:
        fields: the configuration.
        epsilon: the field that has it, or what it is in every model of the type.
        biases: the field that says whether the projections of the attention have biases, if there is one.
        by_layer: whether windows, and rotations if they differ, follow from `layer_types`.
        partial: whether the type can rotate a part of a head.
    """
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
        "pad": pad_of(fields),
        "epsilon": fields[epsilon] if isinstance(epsilon, str) else epsilon,
        "activation": fields.get("hidden_act", "silu"),
        "attention_bias": bias,
        "output_bias": bias,
        "ropes": ropes_of(fields, size, fields.get("layer_types") if by_layer else None, partial=partial),
        "windows": windows_of(fields) if by_layer else (None,) * layers,
        "scales": (size**-0.5,) * layers,
        "attention_dropout": fields.get("attention_dropout") or 0.0,
    }


def renamed(facts: Facts, *without: str, **names: str) -> Facts:
    """The facts with other names of some parts of a layer, given from the layer's own name on, and without others."""
    changed = {part: f"model.layers.{{}}.{name}" for part, name in names.items()}
    return {**facts, "names": {part: name for part, name in (facts["names"] | changed).items() if part not in without}}


def pad_of(fields: Fields) -> int | None:
    """The token that `torch.nn.Embedding` takes for its `padding_idx`; a negative one counts from the end."""
    pad, vocabulary = fields.get("pad_token_id"), fields["vocab_size"]
    if pad is None:
        return None
    if not -vocabulary <= pad < vocabulary:
        raise fields.refused("pad_token_id", pad)
    return int(pad % vocabulary)


def ropes_of(
    fields: Fields, size: int, layer_types: Sequence[str] | None = None, *, partial: bool = False
) -> tuple[Rope | None, ...]:
    """By layer: all alike, unless there are layer types with parameters for each."""
    positions = fields.get("max_position_embeddings", 0)
    kinds: Sequence[str | None] = layer_types or [None] * fields["num_hidden_layers"]
    found = {kind: read_parameters(fields, kind) for kind in dict.fromkeys(kinds)}
    for parameters in found.values():
        if not partial and parameters.get("partial_rotary_factor") not in (None, 1.0):
            raise fields.refused("partial_rotary_factor", parameters["partial_rotary_factor"])
    ropes = {kind: rope(parameters, size, positions, fields.refused) for kind, parameters in found.items()}
    return tuple(ropes[kind] for kind in kinds)


def windows_of(fields: Fields) -> tuple[int | None, ...]:
    """By `layer_types`: all layers attend to all tokens where there are none."""
    layers, window = fields["num_hidden_layers"], fields.get("sliding_window")
    kinds = fields.get("layer_types") or [FULL] * layers
    for kind in kinds:
        if kind not in (FULL, SLIDING):
            raise fields.refused("layer_types", kind)
        if kind == SLIDING and not window:
            raise fields.refused("sliding_window", window)
    return tuple(window if kind == SLIDING else None for kind in kinds)


def _llama(fields: Fields) -> Facts:
    return {**like_llama(fields), "feedforward_bias": bool(fields["mlp_bias"])}


def _qwen2(fields: Fields) -> Facts:
    _made_into_layer_types(fields)
    return {**like_llama(fields, biases=None, by_layer=True), "attention_bias": True}


def _qwen3(fields: Fields) -> Facts:
    _made_into_layer_types(fields)
    return renamed(like_llama(fields, by_layer=True), query_norm="self_attn.q_norm", key_norm="self_attn.k_norm")


def _made_into_layer_types(fields: Fields) -> None:
    """Their classes read these fields for their default of `layer_types` and of `sliding_window` alone."""
    for name in ("use_sliding_window", "max_window_layers", "no_rope_layer_interval"):
        fields.get(name)


def _mistral(fields: Fields) -> Facts:
    window, layers = fields.get("sliding_window"), fields["num_hidden_layers"]
    partial = fields["model_type"] == "phi3"
    return {**like_llama(fields, biases=None, partial=partial), "windows": (window,) * layers}


def _ministral(fields: Fields) -> Facts:
    return like_llama(fields, biases=None, by_layer=True)


def _phi3(fields: Fields) -> Facts:
    fields.get("embd_pdrop")  # No class of transformers uses it.
    facts = _mistral(fields)
    facts |= {
        "afresh_beyond": facts["ropes"][0].length or None,
        "residual_dropout": fields["resid_pdrop"],
        "feedforward_dropout": fields["resid_pdrop"],
    }
    return renamed(
        facts,
        *("query", "key", "value", "gate", "up"),
        query_key_value="self_attn.qkv_proj",
        gate_up="mlp.gate_up_proj",
    )


def _smollm3(fields: Fields) -> Facts:
    _made_into_layer_types(fields)
    facts = {**like_llama(fields, by_layer=True), "feedforward_bias": bool(fields["mlp_bias"])}
    rotates = fields.get("no_rope_layers") or [1] * facts["layers"]
    return {**facts, "ropes": tuple(each if on else None for each, on in zip(facts["ropes"], rotates, strict=True))}


def _granite(fields: Fields) -> Facts:
    return {
        **_llama(fields),
        "embedding_scale": fields["embedding_multiplier"],
        "scales": (fields["attention_multiplier"],) * fields["num_hidden_layers"],
        "residual_scale": fields["residual_multiplier"],
        "logit_scale": 1 / fields["logits_scaling"],
    }


def _seed_oss(fields: Fields) -> Facts:
    return {
        **_llama(fields),
        "output_bias": bool(fields["attention_out_bias"]),
        "residual_dropout": fields["residual_dropout"],
        "feedforward_dropout": fields["residual_dropout"],
    }


def _arcee(fields: Fields) -> Facts:
    return renamed(_llama(fields), "gate")


TYPES = {
    "arcee": _arcee,
    "granite": _granite,
    "llama": _llama,
    "ministral": _ministral,
    "mistral": _mistral,
    "phi3": _phi3,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "seed_oss": _seed_oss,
    "smollm3": _smollm3,
}
