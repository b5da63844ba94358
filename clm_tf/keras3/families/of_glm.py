"""GLM and Helium: Llama's parts, with rotations of neighbouring dimensions, in GLM of a part of each head."""

from clm_tf.keras3.families.of_llama import like_llama, renamed
from clm_tf.keras3.layout import Facts, Fields


def _glm(fields: Fields) -> Facts:
    facts = {**like_llama(fields, partial=True), "output_bias": False, "interleaved": True}
    return renamed(facts, "gate", "up", gate_up="mlp.gate_up_proj")


def _glm4(fields: Fields) -> Facts:
    return renamed(
        _glm(fields),
        attention_output_norm="post_self_attn_layernorm",
        feedforward_output_norm="post_mlp_layernorm",
    )


def _helium(fields: Fields) -> Facts:
    facts = {**like_llama(fields), "output_bias": False, "interleaved": True}
    if facts["heads"] * facts["head_size"] != facts["width"]:  # PyTorch's class fails: its output is so wide.
        raise fields.refused("head_dim", facts["head_size"])
    return {**facts, "feedforward_bias": bool(fields["mlp_bias"])}


TYPES = {"glm": _glm, "glm4": _glm4, "helium": _helium}
