"""GPT-2 and its kin: layer norms with biases, learned positions, or rotary ones of neighbouring dimensions."""

from clm_tf.keras3.families.of_llama import pad_of
from clm_tf.keras3.layout import Facts, Fields
from clm_tf.keras3.rope import Rope, rope

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
GPT_NEO = {
    **{part: name for part, name in GPT2.items() if part != "query_key_value"},
    "query": "transformer.h.{}.attn.attention.q_proj",
    "key": "transformer.h.{}.attn.attention.k_proj",
    "value": "transformer.h.{}.attn.attention.v_proj",
    "output": "transformer.h.{}.attn.attention.out_proj",
}
CODEGEN = {
    "embeddings": "transformer.wte",
    "final_norm": "transformer.ln_f",
    "head": "lm_head",
    "attention_norm": "transformer.h.{}.ln_1",
    "query_key_value": "transformer.h.{}.attn.qkv_proj",
    "output": "transformer.h.{}.attn.out_proj",
    "up": "transformer.h.{}.mlp.fc_in",
    "down": "transformer.h.{}.mlp.fc_out",
}
GPTJ = {
    **{part: name for part, name in CODEGEN.items() if part != "query_key_value"},
    "query": "transformer.h.{}.attn.q_proj",
    "key": "transformer.h.{}.attn.k_proj",
    "value": "transformer.h.{}.attn.v_proj",
}
OPT = {
    "embeddings": "model.decoder.embed_tokens",
    "positions": "model.decoder.embed_positions",
    "final_norm": "model.decoder.final_layer_norm",
    "head": "lm_head",
    "attention_norm": "model.decoder.layers.{}.self_attn_layer_norm",
    "query": "model.decoder.layers.{}.self_attn.q_proj",
    "key": "model.decoder.layers.{}.self_attn.k_proj",
    "value": "model.decoder.layers.{}.self_attn.v_proj",
    "output": "model.decoder.layers.{}.self_attn.out_proj",
    "feedforward_norm": "model.decoder.layers.{}.final_layer_norm",
    "up": "model.decoder.layers.{}.fc1",
    "down": "model.decoder.layers.{}.fc2",
}


def with_layer_norms(
    fields: Fields,
    *,
    width: str = "hidden_size",
    layers: str = "num_hidden_layers",
    heads: str = "num_attention_heads",
    epsilon: str | None = "layer_norm_epsilon",
) -> Facts:
    """What those before Llama share, in the words of their fields: biases and as many keys as queries; no positions.

    Raises:
        ModelError: the width is no multiple of the heads.
    """
    if fields[width] % fields[heads]:
        raise fields.refused(heads, fields[heads])
    size, count = fields[width] // fields[heads], fields[layers]
    return {
        "prefix": "transformer.",
        "vocabulary": fields["vocab_size"],
        "width": fields[width],
        "layers": count,
        "heads": fields[heads],
        "key_value_heads": fields[heads],
        "head_size": size,
        "inner": 4 * fields[width],
        "tied": fields["tie_word_embeddings"],
        "norm": "layer",
        "norm_bias": True,
        "epsilon": fields[epsilon] if epsilon else 1e-5,  # PyTorch's own.
        "attention_bias": True,
        "output_bias": True,
        "feedforward_bias": True,
        "ropes": (None,) * count,
        "windows": (None,) * count,
        "scales": (size**-0.5,) * count,
    }


def _like_gpt2(fields: Fields) -> Facts:
    fields.get("n_ctx")  # As many as the positions in old files; no class of transformers uses it.
    facts = with_layer_norms(fields, width="n_embd", layers="n_layer", heads="n_head")
    return {
        **facts,
        "inner": fields["n_inner"] or facts["inner"],
        "activation": fields["activation_function"],
        "embedding_dropout": fields["embd_pdrop"],
        "attention_dropout": fields["attn_pdrop"],
        "residual_dropout": fields["resid_pdrop"],
        "feedforward_dropout": fields["resid_pdrop"],
    }


def _gpt2(fields: Fields) -> Facts:
    facts = _like_gpt2(fields)
    fields.get("reorder_and_upcast_attn")  # The same numbers in float32, in which scores are computed here.
    fields.expect("add_cross_attention", False)
    scale = facts["scales"][0] if fields["scale_attn_weights"] else 1.0
    by_depth = fields["scale_attn_by_inverse_layer_idx"]
    return {
        **facts,
        "names": GPT2,
        "transposed": False,
        "learned_positions": fields["n_positions"],
        "scales": tuple(scale / (i + 1 if by_depth else 1) for i in range(facts["layers"])),
    }


def _gpt_neo(fields: Fields) -> Facts:
    facts = with_layer_norms(fields, layers="num_layers", heads="num_heads")
    fields.get("attention_types")  # `attention_layers` says what the types come to.
    kinds, window = fields["attention_layers"], fields["window_size"]
    if not set(kinds) <= {"global", "local"}:
        raise fields.refused("attention_layers", kinds)
    if window < 1:
        raise fields.refused("window_size", window)
    return {
        **facts,
        "names": GPT_NEO,
        "inner": fields["intermediate_size"] or facts["inner"],
        "activation": fields["activation_function"],
        "attention_bias": False,
        "learned_positions": fields["max_position_embeddings"],
        "windows": tuple(window if kind == "local" else None for kind in kinds),
        "scales": (1.0,) * facts["layers"],
        "embedding_dropout": fields["embed_dropout"],
        "attention_dropout": fields["attention_dropout"],
        "residual_dropout": fields["resid_dropout"],
        "feedforward_dropout": fields["resid_dropout"],
    }


def _gptj(fields: Fields) -> Facts:
    facts = _like_gpt2(fields)
    for name in ("rotary", "scale_attn_weights"):  # In old files; no class of transformers uses them.
        fields.expect(name, True)
    return {
        **facts,
        "names": GPTJ,
        "attention_bias": False,
        "output_bias": False,
        "head_bias": True,
        "residual": "parallel",
        "ropes": (_rotary(fields, facts["head_size"]),) * facts["layers"],
        "interleaved": True,
    }


def _codegen(fields: Fields) -> Facts:
    if fields["n_head"] % 4:
        raise fields.refused("n_head", fields["n_head"])
    return {**_gptj(fields), "names": CODEGEN, "query_key_value": "codegen"}


def _rotary(fields: Fields, size: int) -> Rope:
    """Of the first `rotary_dim` dimensions of a head."""
    rotated, positions = fields["rotary_dim"], fields["n_positions"]
    if not rotated or rotated % 2 or rotated > size:
        raise fields.refused("rotary_dim", rotated)
    return rope({"rope_theta": 10000.0}, rotated, positions, fields.refused)


def _opt(fields: Fields) -> Facts:
    facts = with_layer_norms(fields, epsilon=None)
    for name in ("layerdrop", "activation_dropout"):
        fields.expect(name, 0.0)
    fields.get("init_std")  # Of first weights, as initializer_range.
    before, bias, narrow = fields["do_layer_norm_before"], fields["enable_bias"], fields["word_embed_proj_dim"]
    projected = narrow not in (None, facts["width"])
    names = dict(OPT)
    if not before or fields["_remove_final_layer_norm"]:
        del names["final_norm"]
    if projected:
        names |= {f"projection_{way}": f"model.decoder.project_{way}" for way in ("in", "out")}
    return {
        **facts,
        "names": names,
        "prefix": "model.",
        "inner": fields["ffn_dim"],
        "embedding_width": narrow if projected else None,
        "pad": pad_of(fields),
        "norm_weight": fields["layer_norm_elementwise_affine"],
        "norm_bias": fields["layer_norm_elementwise_affine"],
        "residual": "sequential" if before else "after",
        "activation": fields["activation_function"],
        "attention_bias": bias,
        "output_bias": bias,
        "feedforward_bias": bias,
        "learned_positions": fields["max_position_embeddings"],
        "first_position": 2,
        "attention_dropout": fields["attention_dropout"],
        "residual_dropout": fields["dropout"],
        "feedforward_dropout": fields["dropout"],
    }


TYPES = {"codegen": _codegen, "gpt2": _gpt2, "gpt_neo": _gpt_neo, "gptj": _gptj, "opt": _opt}
