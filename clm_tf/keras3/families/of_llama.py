"""What most of today's decoders share with Llama, and those that differ little from it."""

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


def like_llama(fields: Fields, *, epsilon: str = "rms_norm_eps", biases: str | None = "attention_bias") -> Facts:
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
        "ropes": ropes_of(fields, size),
        "windows": (None,) * layers,
        "scales": (size**-0.5,) * layers,
        "attention_dropout": fields.get("attention_dropout", 0.0),
    }


def renamed(facts: Facts, *without: str, **names: str) -> Facts:
    """The facts with other names of some parts of a layer, given from the layer's own name on, and without others."""
    changed = {part: f"model.layers.{{}}.{name}" for part, name in names.items()}
    return {**facts, "names": {part: name for part, name in (facts["names"] | changed).items() if part not in without}}


def ropes_of(fields: Fields, size: int) -> tuple[Rope | None, ...]:
    """By layer, and by `layer_types` where there are parameters for each type."""
    layers, positions = fields["num_hidden_layers"], fields.get("max_position_embeddings", 0)
    kinds = fields.get("layer_types") or [None] * layers
    by_kind = {kind: rope(read_parameters(fields, kind), size, positions, fields.refused) for kind in set(kinds)}
    return tuple(by_kind[kind] for kind in kinds)


def windows_of(fields: Fields) -> tuple[int | None, ...]:
    """By `layer_types`: all layers attend to all tokens where there are none."""
    layers, window = fields["num_hidden_layers"], fields.get("sliding_window")
    kinds = fields.get("layer_types") or [FULL] * layers
    for kind in kinds:
        if kind not in (FULL, SLIDING):
            raise fields.refused("layer_types", kind)
    return tuple(window if kind == SLIDING else None for kind in kinds)


def _llama(fields: Fields) -> Facts:
    return {**like_llama(fields), "feedforward_bias": bool(fields["mlp_bias"])}


def _qwen2(fields: Fields) -> Facts:
    fields.get("use_sliding_window"), fields.get("max_window_layers")  # `layer_types` says what they come to.
    return {**like_llama(fields, biases=None), "attention_bias": True, "windows": windows_of(fields)}


def _qwen3(fields: Fields) -> Facts:
    fields.get("use_sliding_window"), fields.get("max_window_layers")
    facts = {**like_llama(fields), "windows": windows_of(fields)}
    return renamed(facts, query_norm="self_attn.q_norm", key_norm="self_attn.k_norm")


def _mistral(fields: Fields) -> Facts:
    window, layers = fields.get("sliding_window"), fields["num_hidden_layers"]
    return {**like_llama(fields, biases=None), "windows": (window,) * layers}


def _phi3(fields: Fields) -> Facts:
    fields.get("embd_pdrop")  # No class of transformers uses it.
    facts = {
        **_mistral(fields),
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
    facts = {**_llama(fields), "windows": windows_of(fields)}
    fields.get("use_sliding_window"), fields.get("max_window_layers"), fields.get("no_rope_layer_interval")
    rotates = fields.get("no_rope_layers") or [1] * facts["layers"]
    return {**facts, "ropes": tuple(each if on else None for each, on in zip(facts["ropes"], rotates, strict=True))}


TYPES = {
    "llama": _llama,
    "mistral": _mistral,
    "phi3": _phi3,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "smollm3": _smollm3,
}
