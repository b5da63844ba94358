"""Gemma: norms whose weight is added to 1, scaled embeddings, caps; from Gemma 2 on, norms after each branch too."""

import math

from clm_tf.keras3.families.of_llama import like_llama, renamed, windows_of
from clm_tf.keras3.layout import Facts, Fields


def _gemma(fields: Fields) -> Facts:
    facts = like_llama(fields)
    activation = fields.get("hidden_activation") or fields.get("hidden_act")
    return {
        **facts,
        "norm_offset": 1.0,
        "embedding_scale": math.sqrt(facts["width"]),
        "activation": "gelu_pytorch_tanh" if fields["model_type"] == "gemma" and not activation else activation,
    }


def _gemma2(fields: Fields) -> Facts:
    facts = {
        **_gemma(fields),
        "windows": windows_of(fields),
        "scales": (fields["query_pre_attn_scalar"] ** -0.5,) * fields["num_hidden_layers"],
        "score_cap": fields["attn_logit_softcapping"],
        "logit_cap": fields["final_logit_softcapping"],
    }
    fields.expect("use_bidirectional_attention", None, False)
    return renamed(
        facts,
        attention_output_norm="post_attention_layernorm",
        feedforward_norm="pre_feedforward_layernorm",
        feedforward_output_norm="post_feedforward_layernorm",
    )


def _gemma3_text(fields: Fields) -> Facts:
    return renamed(_gemma2(fields), query_norm="self_attn.q_norm", key_norm="self_attn.k_norm")


TYPES = {"gemma": _gemma, "gemma2": _gemma2, "gemma3_text": _gemma3_text}
