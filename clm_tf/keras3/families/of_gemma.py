"""Gemma: norms whose weight is added to 1, scaled embeddings, caps; from Gemma 2 on, norms after each branch too."""

import math

from clm_tf.keras3.families.of_llama import like_llama, renamed
from clm_tf.keras3.layout import Facts, Fields


def _gemma(fields: Fields) -> Facts:
    fields.expect("hidden_activation", None, fields["hidden_act"])  # What it says is not read.
    return _in_gemmas_way(fields, like_llama(fields))


def _gemma2(fields: Fields) -> Facts:
    for cap in ("attn_logit_softcapping", "final_logit_softcapping"):
        if fields[cap] == 0:
            raise fields.refused(cap, fields[cap])
    facts = {
        **_in_gemmas_way(fields, like_llama(fields, by_layer=True)),
        "activation": fields["hidden_activation"],
        "scales": (fields["query_pre_attn_scalar"] ** -0.5,) * fields["num_hidden_layers"],
        "score_cap": fields["attn_logit_softcapping"],
        "logit_cap": fields["final_logit_softcapping"],
    }
    return renamed(
        facts,
        attention_output_norm="post_attention_layernorm",
        feedforward_norm="pre_feedforward_layernorm",
        feedforward_output_norm="post_feedforward_layernorm",
    )


def _gemma3_text(fields: Fields) -> Facts:
    for pattern in ("sliding_window_pattern", "_sliding_window_pattern"):
        fields.get(pattern)  # It is the default of `layer_types`.
    facts = {**_gemma2(fields), "score_cap": None}  # PyTorch's class has the cap, and does not apply it.
    return renamed(facts, query_norm="self_attn.q_norm", key_norm="self_attn.k_norm")


def _in_gemmas_way(fields: Fields, facts: Facts) -> Facts:
    fields.expect("use_bidirectional_attention", None, False)
    return {**facts, "norm_offset": 1.0, "embedding_scale": math.sqrt(facts["width"])}


TYPES = {"gemma": _gemma, "gemma2": _gemma2, "gemma3_text": _gemma3_text}
