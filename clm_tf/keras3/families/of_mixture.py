"""Mixtures of experts: Mixtral, OLMoE, and those of Qwen 2 and 3."""

from clm_tf.keras3.families.of_llama import like_llama, renamed, windows_of
from clm_tf.keras3.layout import Facts, Fields

EXPERTS = {
    "router": "model.layers.{}.mlp.gate",
    "experts.gate": "model.layers.{}.mlp.experts.{}.gate_proj",
    "experts.up": "model.layers.{}.mlp.experts.{}.up_proj",
    "experts.down": "model.layers.{}.mlp.experts.{}.down_proj",
}
OF_MIXTRAL = {
    "router": "model.layers.{}.block_sparse_moe.gate",
    "experts.gate": "model.layers.{}.block_sparse_moe.experts.{}.w1",
    "experts.up": "model.layers.{}.block_sparse_moe.experts.{}.w3",
    "experts.down": "model.layers.{}.block_sparse_moe.experts.{}.w2",
}
SHARED = {
    "shared_gate": "model.layers.{}.mlp.shared_expert_gate",
    "shared.gate": "model.layers.{}.mlp.shared_expert.gate_proj",
    "shared.up": "model.layers.{}.mlp.shared_expert.up_proj",
    "shared.down": "model.layers.{}.mlp.shared_expert.down_proj",
}


def _with_experts(fields: Fields, facts: Facts, experts: int, inner: int, names: dict[str, str]) -> Facts:
    """The facts of a mixture, all of whose layers have `experts` experts of the width `inner`.

    Raises:
        ModelError: as many are to be chosen as there are not.
    """
    chosen = fields["num_experts_per_tok"]
    if not 1 <= chosen <= experts:
        raise fields.refused("num_experts_per_tok", chosen)
    weight = fields.get("router_aux_loss_coef") or 0.0
    return {
        **facts,
        "names": facts["names"] | names,
        "experts": experts,
        "experts_chosen": chosen,
        "expert_inner": inner,
        "expert_layers": (True,) * facts["layers"],
        "balance_weight": weight if fields.get("output_router_logits") else 0.0,
    }


def _mixtral(fields: Fields) -> Facts:
    fields.expect("router_jitter_noise", 0.0, None)
    facts = {
        **like_llama(fields, biases=None),
        "windows": _same_windows(fields),
        "shares_normalized": True,
    }
    return _with_experts(fields, facts, fields["num_local_experts"], fields["intermediate_size"], OF_MIXTRAL)


def _olmoe(fields: Fields) -> Facts:
    facts = renamed(like_llama(fields), query_norm="self_attn.q_norm", key_norm="self_attn.k_norm")
    facts |= {
        "query_key_norm": "width",
        "clip": fields.get("clip_qkv"),
        "shares_normalized": bool(fields["norm_topk_prob"]),
    }
    return _with_experts(fields, facts, fields["num_experts"], fields["intermediate_size"], EXPERTS)


def _of_qwen(fields: Fields, facts: Facts, experts: int, names: dict[str, str]) -> Facts:
    """Some layers may have a feed-forward branch of the usual kind."""
    for name in ("use_sliding_window", "max_window_layers"):
        fields.get(name)  # The class of the configuration makes the window, and the types of the layers, of them.
    without, step = fields["mlp_only_layers"] or (), fields["decoder_sparse_step"]
    if step < 1:
        raise fields.refused("decoder_sparse_step", step)
    facts = _with_experts(fields, facts, experts, fields["moe_intermediate_size"], names)
    layers = tuple(i not in without and (i + 1) % step == 0 for i in range(facts["layers"]))
    return {**facts, "expert_layers": layers, "shares_normalized": bool(fields["norm_topk_prob"])}


def _qwen2_moe(fields: Fields) -> Facts:
    by_layer = bool(fields.get("layer_types"))
    facts = like_llama(fields, biases=None)
    facts |= {
        "attention_bias": bool(fields["qkv_bias"]),
        "windows": windows_of(fields) if by_layer else _same_windows(fields),
        "shared_inner": fields["shared_expert_intermediate_size"],
    }
    for name in (
        "use_sliding_window",
        "max_window_layers",
    ):  # Its class makes the window and the types of layers of it.
        fields.get(name)
    return _of_qwen(fields, facts, fields["num_experts"], EXPERTS | SHARED)


def _qwen3_moe(fields: Fields) -> Facts:
    facts = renamed(like_llama(fields), query_norm="self_attn.q_norm", key_norm="self_attn.k_norm")
    facts["windows"] = _same_windows(fields)
    experts = fields["num_experts" if "num_experts" in fields else "num_local_experts"]
    return _of_qwen(fields, facts, experts, EXPERTS)


def _same_windows(fields: Fields) -> tuple[int | None, ...]:
    """One for all layers; none where the field is null or, as in Qwen's, 0."""
    return (fields.get("sliding_window") or None,) * fields["num_hidden_layers"]


TYPES = {"mixtral": _mixtral, "olmoe": _olmoe, "qwen2_moe": _qwen2_moe, "qwen3_moe": _qwen3_moe}
