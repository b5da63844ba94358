"""OLMo, whose norms have no weights, and those that norm the output of each branch: OLMo 2 and 3, EXAONE 4."""

from clm_tf.keras3.families.of_llama import like_llama, renamed
from clm_tf.keras3.layout import Facts, Fields


def _olmo(fields: Fields) -> Facts:
    clip = fields.get("clip_qkv")
    return {**like_llama(fields, epsilon=1e-5), "norm": "layer", "norm_weight": False, "clip": clip}


def _olmo2(fields: Fields) -> Facts:
    return {**_normed_after(like_llama(fields)), "query_key_norm": "width"}


def _olmo3(fields: Fields) -> Facts:
    return {**_normed_after(like_llama(fields, by_layer=True)), "query_key_norm": "width"}


def _exaone4(fields: Fields) -> Facts:
    fields.get("sliding_window_pattern")  # It is the default of `layer_types`.
    facts = _normed_after(like_llama(fields, biases=None, by_layer=True))
    if fields["sliding_window"] is None:
        return facts
    rotated = zip(facts["ropes"], facts["windows"], strict=True)
    return {**facts, "ropes": tuple(rope if window else None for rope, window in rotated)}


def _normed_after(facts: Facts) -> Facts:
    return renamed(
        facts,
        *("attention_norm", "feedforward_norm"),
        attention_output_norm="post_attention_layernorm",
        feedforward_output_norm="post_feedforward_layernorm",
        query_norm="self_attn.q_norm",
        key_norm="self_attn.k_norm",
    )


TYPES = {"exaone4": _exaone4, "olmo": _olmo, "olmo2": _olmo2, "olmo3": _olmo3}
