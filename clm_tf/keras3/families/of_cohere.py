"""Command R: attention and feed-forward side by side after one layer norm without bias, pairs of neighbours rotated."""

from clm_tf.keras3.families.of_llama import like_llama, renamed
from clm_tf.keras3.layout import Facts, Fields


def _cohere(fields: Fields) -> Facts:
    facts = _parallel(fields, like_llama(fields, epsilon="layer_norm_eps"))
    if not fields["use_qk_norm"]:
        return facts
    facts = renamed(facts, query_norm="self_attn.q_norm", key_norm="self_attn.k_norm")
    return {**facts, "query_key_norm": "each_head"}


def _cohere2(fields: Fields) -> Facts:
    for pattern in ("sliding_window_pattern", "_sliding_window_pattern"):
        fields.get(pattern)  # It is the default of `layer_types`.
    facts = _parallel(fields, like_llama(fields, epsilon="layer_norm_eps", by_layer=True))
    rotated = zip(facts["ropes"], facts["windows"], strict=True)
    return {**facts, "ropes": tuple(rope if window else None for rope, window in rotated)}


def _parallel(fields: Fields, facts: Facts) -> Facts:
    more = {"norm": "layer", "residual": "parallel", "interleaved": True, "logit_scale": fields["logit_scale"]}
    return renamed({**facts, **more}, "feedforward_norm")


TYPES = {"cohere": _cohere, "cohere2": _cohere2}
