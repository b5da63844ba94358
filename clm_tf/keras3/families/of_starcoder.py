"""StarCoder 2, StableLM and Nemotron: layer norms with biases in the places of Llama's norms."""

from clm_tf.keras3.families.of_llama import like_llama, renamed
from clm_tf.keras3.layout import Facts, Fields

LAYER_NORM = {"norm": "layer", "norm_bias": True}


def _starcoder2(fields: Fields) -> Facts:
    facts = {
        **like_llama(fields, epsilon="norm_epsilon", biases="use_bias"),
        **LAYER_NORM,
        "feedforward_bias": bool(fields["use_bias"]),
        "windows": (fields.get("sliding_window"),) * fields["num_hidden_layers"],
        "embedding_dropout": fields["embedding_dropout"],
        "residual_dropout": fields["residual_dropout"],
        "feedforward_dropout": fields["residual_dropout"],
    }
    return renamed(facts, "gate", up="mlp.c_fc", down="mlp.c_proj")


def _stablelm(fields: Fields) -> Facts:
    fields.expect("qk_layernorm", False)  # It has a module with a weight for each head.
    facts = {
        **like_llama(fields, epsilon="layer_norm_eps", biases="use_qkv_bias", partial=True),
        **LAYER_NORM,
        "output_bias": False,
        "feedforward_dropout": fields["hidden_dropout"],
    }
    if facts["width"] % facts["heads"]:
        raise fields.refused("num_attention_heads", facts["heads"])
    # PyTorch's class reads it for the rotation alone.
    fields.expect("head_dim", None, facts["width"] // facts["heads"])
    return renamed({**facts, "residual": "parallel"}, "feedforward_norm") if fields["use_parallel_residual"] else facts


def _nemotron(fields: Fields) -> Facts:
    facts = {**like_llama(fields, epsilon="norm_eps", partial=True), **LAYER_NORM, "norm_offset": 1.0}
    return renamed({**facts, "feedforward_bias": bool(fields["mlp_bias"])}, "gate")


TYPES = {"nemotron": _nemotron, "stablelm": _stablelm, "starcoder2": _starcoder2}
