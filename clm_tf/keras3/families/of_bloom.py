"""Bloom, Falcon, GPT-NeoX, MPT and Phi: fused projections by head, ALiBi or rotary positions, parallel branches."""

import math

from clm_tf.keras3.families.of_gpt import with_layer_norms
from clm_tf.keras3.families.of_llama import pad_of, ropes_of
from clm_tf.keras3.layout import Facts, Fields

BLOOM = {
    "embeddings": "transformer.word_embeddings",
    "embedding_norm": "transformer.word_embeddings_layernorm",
    "final_norm": "transformer.ln_f",
    "head": "lm_head",
    "attention_norm": "transformer.h.{}.input_layernorm",
    "query_key_value": "transformer.h.{}.self_attention.query_key_value",
    "output": "transformer.h.{}.self_attention.dense",
    "feedforward_norm": "transformer.h.{}.post_attention_layernorm",
    "up": "transformer.h.{}.mlp.dense_h_to_4h",
    "down": "transformer.h.{}.mlp.dense_4h_to_h",
}
FALCON = {part: name for part, name in BLOOM.items() if part not in ("embedding_norm", "feedforward_norm")}
GPT_NEOX = {
    "embeddings": "gpt_neox.embed_in",
    "final_norm": "gpt_neox.final_layer_norm",
    "head": "embed_out",
    "attention_norm": "gpt_neox.layers.{}.input_layernorm",
    "query_key_value": "gpt_neox.layers.{}.attention.query_key_value",
    "output": "gpt_neox.layers.{}.attention.dense",
    "feedforward_norm": "gpt_neox.layers.{}.post_attention_layernorm",
    "up": "gpt_neox.layers.{}.mlp.dense_h_to_4h",
    "down": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
}
MPT = {
    "embeddings": "transformer.wte",
    "final_norm": "transformer.norm_f",
    "head": "lm_head",
    "attention_norm": "transformer.blocks.{}.norm_1",
    "query_key_value": "transformer.blocks.{}.attn.Wqkv",
    "output": "transformer.blocks.{}.attn.out_proj",
    "feedforward_norm": "transformer.blocks.{}.norm_2",
    "up": "transformer.blocks.{}.ffn.up_proj",
    "down": "transformer.blocks.{}.ffn.down_proj",
}
PHI = {
    "embeddings": "model.embed_tokens",
    "final_norm": "model.final_layernorm",
    "head": "lm_head",
    "attention_norm": "model.layers.{}.input_layernorm",
    "query": "model.layers.{}.self_attn.q_proj",
    "key": "model.layers.{}.self_attn.k_proj",
    "value": "model.layers.{}.self_attn.v_proj",
    "output": "model.layers.{}.self_attn.dense",
    "up": "model.layers.{}.mlp.fc1",
    "down": "model.layers.{}.mlp.fc2",
}
PHI_NORMS = {f"{part}_norm": f"model.layers.{{}}.self_attn.{part[0]}_layernorm" for part in ("query", "key")}

UNUSED_OF_BLOOM = (
    *("attention_softmax_in_fp32", "bias_dropout_fusion", "masked_softmax_fusion", "offset_alibi", "seq_length"),
    *("skip_bias_add", "skip_bias_add_qkv", "unk_token_id"),
)
"""How BigScience's own code trained: the files have it, and no class of transformers uses it."""


def _bloom(fields: Fields) -> Facts:
    facts = with_layer_norms(fields, layers="n_layer", heads="n_head")
    for name in UNUSED_OF_BLOOM:
        fields.get(name)
    fields.expect("n_inner", None, facts["inner"])
    if fields["slow_but_exact"] and fields["pretraining_tp"] > 1:  # Without the biases of two projections.
        raise fields.refused("slow_but_exact", fields["slow_but_exact"])
    return {
        **facts,
        "names": BLOOM,
        "query_key_value": "grouped",
        "activation": "gelu_new",
        "residual": "normed" if fields["apply_residual_connection_post_layernorm"] else "sequential",
        "slopes": _slopes(facts["heads"]),
        "attention_dropout": fields["attention_dropout"],
        "residual_dropout": fields["hidden_dropout"],
        "feedforward_dropout": fields["hidden_dropout"],
    }


def _falcon(fields: Fields) -> Facts:
    facts = with_layer_norms(fields)
    size, bias, alibi, parallel = facts["head_size"], bool(fields["bias"]), fields["alibi"], fields["parallel_attn"]
    ropes, dropout, last_dropout = ropes_of(fields, size), fields["attention_dropout"], fields["hidden_dropout"]
    return {
        **facts,
        **_heads_of_falcon(fields, facts["heads"]),
        "names": FALCON | _norms_of_falcon(fields),
        "inner": fields["ffn_hidden_size"] or facts["inner"],
        "activation": fields["activation"],
        "attention_bias": bias,
        "output_bias": bias,
        "feedforward_bias": bias,
        "residual": "parallel" if parallel else "sequential",
        "ropes": facts["ropes"] if alibi else ropes,
        "slopes": _slopes(facts["heads"]) if alibi else (),
        "rounded_slopes": size**-0.5 if alibi else None,
        "attention_dropout": dropout if alibi else 0.0,  # So it is in PyTorch.
        "residual_dropout": 0.0 if parallel else dropout,
        "feedforward_dropout": 0.0 if parallel else last_dropout,
        "sum_dropout": last_dropout if parallel else 0.0,
    }


def _heads_of_falcon(fields: Fields, heads: int) -> Facts:
    others = fields.get("num_kv_heads") or heads
    if fields["new_decoder_architecture"]:
        fields.get("multi_query")
        return {"key_value_heads": others, "query_key_value": "grouped"}
    if fields["multi_query"]:
        return {"key_value_heads": 1}
    fields.expect("num_kv_heads", heads, None)
    return {"query_key_value": "grouped"}


def _norms_of_falcon(fields: Fields) -> dict[str, str]:
    """What it calls the norms of a layer: one or two where the branches are parallel.

    Raises:
        ModelError: the class in PyTorch fails with them.
    """
    new, parallel = fields["new_decoder_architecture"], fields["parallel_attn"]
    count = fields["num_ln_in_parallel_attn"]
    if not parallel:
        if new:
            raise fields.refused("parallel_attn", parallel)
        return {"feedforward_norm": BLOOM["feedforward_norm"]}
    if count not in ((None, 1, 2) if new else (None, 1)):
        raise fields.refused("num_ln_in_parallel_attn", count)
    if new and count != 1:
        return {"attention_norm": "transformer.h.{}.ln_attn", "feedforward_norm": "transformer.h.{}.ln_mlp"}
    return {}


def _gpt_neox(fields: Fields) -> Facts:
    facts = with_layer_norms(fields, epsilon="layer_norm_eps")
    fields.expect("is_decoder", False, True)  # It is one either way.
    fields.expect("head_dim", None, facts["head_size"])
    for name, same in {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}.items():
        if same in fields:
            fields.expect(name, fields[same])
    dropout, bias = fields["hidden_dropout"], fields["attention_bias"]
    return {
        **facts,
        "names": GPT_NEOX,
        "prefix": "gpt_neox.",
        "inner": fields["intermediate_size"],
        "activation": fields["hidden_act"],
        "query_key_value": "grouped",
        "attention_bias": bias,
        "output_bias": bias,
        "residual": "parallel" if fields["use_parallel_residual"] else "sequential",
        "ropes": ropes_of(fields, facts["head_size"], partial=True),
        "embedding_dropout": dropout,
        "attention_dropout": fields["attention_dropout"],
        "residual_dropout": dropout,
        "feedforward_dropout": dropout,
    }


def _phi(fields: Fields) -> Facts:
    facts = with_layer_norms(fields, epsilon="layer_norm_eps")
    size, dropout = fields.get("head_dim") or facts["head_size"], fields["resid_pdrop"]
    normed = fields["qk_layernorm"]
    if normed:  # Its norms are as wide as a head without that field is.
        fields.expect("head_dim", None, facts["head_size"])
    return {
        **facts,
        "names": PHI | (PHI_NORMS if normed else {}),
        "prefix": "model.",
        "key_value_heads": fields.get("num_key_value_heads") or facts["heads"],
        "head_size": size,
        "inner": fields["intermediate_size"],
        "pad": pad_of(fields),
        "head_bias": True,
        "activation": fields["hidden_act"],
        "residual": "parallel",
        "ropes": ropes_of(fields, size, partial=True),
        "scales": (size**-0.5,) * facts["layers"],
        "embedding_dropout": fields["embd_pdrop"],
        "attention_dropout": fields["attention_dropout"],
        "residual_dropout": dropout,
        "feedforward_dropout": dropout,
    }


def _mpt(fields: Fields) -> Facts:
    facts = with_layer_norms(fields, width="d_model", layers="n_layers", heads="n_heads")
    for name in ("init_config", "init_device", "max_seq_len", "tokenizer_name", "verbose"):
        fields.get(name)
    attention = _attention_of_mpt(fields)
    dropout = attention["attn_pdrop"]
    return {
        **facts,
        "names": MPT,
        "norm_bias": False,
        "attention_bias": False,
        "output_bias": False,
        "feedforward_bias": False,
        "activation": "gelu",
        "clip": attention["clip_qkv"] or None,
        "scales": (attention["softmax_scale"] or facts["scales"][0],) * facts["layers"],
        "slopes": _slopes_of_mpt(facts["heads"]),
        "attention_dropout": dropout,
        "residual_dropout": dropout,
        "feedforward_dropout": dropout,
    }


def _attention_of_mpt(fields: Fields) -> Facts:
    """What is read of `attn_config`.

    Raises:
        ModelError: it says what the class in PyTorch does not do.
    """
    from transformers import PretrainedConfig

    given = fields["attn_config"]
    for name in sorted(given.keys() - PretrainedConfig().to_dict().keys() - {"attn_impl", *READ_BY_MPT}):
        if name not in USED_BY_MPT or given[name] != USED_BY_MPT[name]:
            raise fields.refused(f"attn_config.{name}", given[name])
    return {name: given[name] for name in READ_BY_MPT}


READ_BY_MPT = ("attn_pdrop", "clip_qkv", "softmax_scale")
USED_BY_MPT: Facts = {
    "attn_type": "multihead_attention",
    "alibi": True,
    "alibi_bias_max": 8,
    "prefix_lm": False,
    "qk_ln": False,
    "attn_uses_sequence_id": False,
}
"""In `attn_config`: what the class in PyTorch does whatever the configuration says."""


def _slopes(heads: int) -> tuple[float, ...]:
    """Of ALiBi (Press et al., 2021): where the heads are no power of two, those between the slopes of the power below.

    Bloom and Falcon have them so.
    """
    power = 2 ** math.floor(math.log2(heads))
    between = [2 ** (-4 * i / power) for i in range(1, 2 * (heads - power), 2)]
    return (*(2 ** (-8 * i / power) for i in range(1, power + 1)), *between)


def _slopes_of_mpt(heads: int) -> tuple[float, ...]:
    """Of ALiBi: where the heads are no power of two, every second one of the power above, then the others."""
    power = 2 ** math.ceil(math.log2(heads))
    slopes = [2 ** (-8 * i / power) for i in range(1, power + 1)]
    return tuple(slopes if power == heads else (slopes[1::2] + slopes[::2])[:heads])


TYPES = {"bloom": _bloom, "falcon": _falcon, "gpt_neox": _gpt_neox, "mpt": _mpt, "phi": _phi}
