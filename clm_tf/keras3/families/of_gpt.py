"""GPT-2 and those that came before Llama: layer norms with biases, learned positions or early rotary ones."""

from clm_tf.keras3.layout import Facts, Fields

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


def _gpt2(fields: Fields) -> Facts:
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


TYPES = {"gpt2": _gpt2}
