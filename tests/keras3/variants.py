"""The table of small decoders: for every type its plain one, and variants that change the fields that its class reads.

In the words of transformers 5.
"""

from typing import Any

from tests.keras3.plain_decoders import DROPOUT, FULL, INNER, LAYERS, PLAIN, POSITIONS, SLIDING, WINDOW, Fields


def _rope(kind: str, positions: int = POSITIONS, theta: float = 10000.0, **parameters: Any) -> Fields:
    parameters = {"rope_type": kind, "rope_theta": theta, **parameters}
    return {"rope_parameters": parameters, "max_position_embeddings": positions}


LINEAR = _rope("linear", factor=4.0)
DYNAMIC = _rope("dynamic", positions=32, factor=2.0)  # The tests' tokens are more than these positions.
OF_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = _rope("llama3", factor=8.0, **OF_LLAMA3)
YARN = _rope("yarn", factor=4.0, beta_fast=4.0, beta_slow=0.5, original_max_position_embeddings=24)
MSCALE = _rope("yarn", factor=3.0, mscale=0.7, mscale_all_dim=0.4, truncate=False, original_max_position_embeddings=32)
SCALED = _rope("yarn", factor=2.0, attention_factor=0.8, original_max_position_embeddings=48)
THETA = {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0}}


def _longrope(first: int, pairs: int, **more: Any) -> Fields:
    """Of `first` positions before they were extended, for so many pairs of rotated entries."""
    short, long = [1.0, 1.3, 1.6, 2.0][:pairs], [2.0, 3.0, 5.0, 8.0][:pairs]
    parameters = {"short_factor": short, "long_factor": long, "original_max_position_embeddings": first, **more}
    return _rope("longrope", **parameters) | {"original_max_position_embeddings": first}


def _partial(factor: float, rope: Fields = THETA) -> Fields:
    return rope | {"rope_parameters": rope["rope_parameters"] | {"partial_rotary_factor": factor}}


def _by_layer(full: Fields, theta: float) -> Fields:
    """With a rope of its own for each type of layer."""
    sliding = {"rope_type": "default", "rope_theta": theta}
    return full | {"rope_parameters": {FULL: full["rope_parameters"], SLIDING: sliding}}


TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
ATTENTION_BIAS = {"attention_bias": True, "attention_dropout": 0.1}
BIASES = ATTENTION_BIAS | {"mlp_bias": True}
RMS = {"rms_norm_eps": 0.02, "hidden_act": "gelu"}
NORM = {"layer_norm_eps": 0.02, "hidden_act": "gelu"}
EPSILON = {"layer_norm_epsilon": 0.02, "activation_function": "relu"}
SLIDES = {"use_sliding_window": True, "sliding_window": WINDOW}
ROUTED = {"output_router_logits": True, "router_aux_loss_coef": 0.1}
SIX_HEADS = 48, 6  # Width and heads: no power of two.

CHANGES: dict[str, dict[str, Fields]] = {
    "llama": {
        "tied": TIED | RMS | THETA,
        "biases": BIASES | {"head_dim": 12},
        "all_heads": {"num_key_value_heads": None, "pad_token_id": None},
        "linear": LINEAR,
        "dynamic": DYNAMIC,
        "llama3": LLAMA3,
        "yarn": YARN,
        "yarn_mscale": MSCALE,
        "yarn_scaled": SCALED,
        "longrope": _longrope(32, 4),
        "longrope_short": _longrope(64, 4, factor=2.0),
        "longrope_scaled": _longrope(32, 4, attention_factor=1.2),
    },
    "qwen2": {
        "tied": TIED | RMS | THETA | {"attention_dropout": 0.1},
        "windows": SLIDES | {"max_window_layers": 1},
        "layers": SLIDES | {"layer_types": [SLIDING, FULL, SLIDING]},
        "head_size": {"head_dim": 12},
        "yarn": YARN,
    },
    "qwen3": {
        "tied": TIED | RMS | THETA,
        "biases": ATTENTION_BIAS | {"num_key_value_heads": None},
        "windows": SLIDES | {"max_window_layers": 2},
        "layers": SLIDES | {"layer_types": [FULL, SLIDING, FULL]},
        "dynamic": DYNAMIC,
    },
    "gemma": {
        "untied": UNTIED | THETA | {"rms_norm_eps": 0.02},
        "biases": ATTENTION_BIAS | {"num_key_value_heads": 1},
        "legacy_act": {"hidden_act": "gelu"},
        "linear": LINEAR,
    },
    "gemma2": {
        "untied": UNTIED | THETA | {"rms_norm_eps": 0.02, "hidden_activation": "silu"},
        "biases": ATTENTION_BIAS | {"query_pre_attn_scalar": 20},
        "layers": {"layer_types": [FULL, SLIDING, SLIDING], "sliding_window": 9},
        "low_caps": {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 1.5},
        "no_caps": {"attn_logit_softcapping": None, "final_logit_softcapping": None},
        "llama3": LLAMA3,
    },
    "gemma3_text": {
        "untied": UNTIED | {"rms_norm_eps": 0.02, "hidden_activation": "silu"},
        "biases": ATTENTION_BIAS | {"query_pre_attn_scalar": 20},
        "layers": {"layer_types": [FULL, SLIDING, SLIDING], "sliding_window": 9},
        "low_caps": {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 1.5},
        "thetas": _by_layer(THETA, 50.0),
        "linear": _by_layer(LINEAR, 100.0),
    },
    "mistral": {
        "full": TIED | RMS | THETA | {"sliding_window": None},
        "head_size": {"head_dim": 12, "attention_dropout": 0.1},
        "llama3": LLAMA3,
    },
    "phi3": {
        "tied": TIED | RMS | {"resid_pdrop": 0.1, "embd_pdrop": 0.2, "attention_dropout": 0.3},
        "window": {"sliding_window": WINDOW, "num_key_value_heads": None},
        "partial": _partial(0.5) | {"head_dim": 12},
        "longrope": _longrope(32, 4),
        "longrope_short": _longrope(64, 4),
        "longrope_partial": _partial(0.5, _longrope(32, 2)),
    },
    "smollm3": {
        "untied": UNTIED | RMS | THETA,
        "biases": BIASES | {"no_rope_layer_interval": 2, "head_dim": 12},
        "windows": SLIDES | {"no_rope_layers": [1, 0, 0]},
        "layers": SLIDES | {"layer_types": [SLIDING, FULL, SLIDING], "no_rope_layers": [0, 1, 1]},
        "yarn": YARN,
    },
    "gpt2": {
        "untied": UNTIED | EPSILON | {"n_inner": INNER},
        "dropout": DROPOUT,
        "unscaled": {"scale_attn_weights": False},
        "by_layer": {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
    },
    "ministral": {
        "full": TIED | RMS | THETA | {"layer_types": [FULL] * LAYERS},
        "layers": {"layer_types": [SLIDING, FULL, SLIDING], "head_dim": 12, "attention_dropout": 0.1},
        "longrope": _longrope(32, 4),
    },
    "olmo": {
        "tied": TIED | THETA | {"hidden_act": "gelu"},
        "clipped": ATTENTION_BIAS | {"clip_qkv": 0.8, "head_dim": 12},
        "dynamic": DYNAMIC,
    },
    "olmo2": {"tied": TIED | RMS | THETA, "biases": ATTENTION_BIAS | {"head_dim": 12}, "linear": LINEAR},
    "olmo3": {
        "tied": TIED | RMS | _by_layer(THETA, 300.0),
        "biases": ATTENTION_BIAS | {"layer_types": [FULL, SLIDING, SLIDING], "sliding_window": 9, "head_dim": 12},
        "yarn": _by_layer(YARN, 10000.0),
    },
    "granite": {
        "tied": TIED | RMS | THETA,
        "biases": BIASES | {"head_dim": 12},
        "multipliers": {"embedding_multiplier": 3.0, "residual_multiplier": 0.4, "attention_multiplier": 0.2}
        | {"logits_scaling": 2.0},
        "yarn": YARN,
    },
    "glm": {
        "tied": TIED | RMS | _partial(1.0),
        "unbiased": {"attention_bias": False, "attention_dropout": 0.1, "head_dim": 16, "num_key_value_heads": 1},
        "linear": _partial(0.5, LINEAR),
    },
    "glm4": {
        "tied": TIED | RMS | _partial(1.0),
        "unbiased": {"attention_bias": False, "attention_dropout": 0.1, "head_dim": 16, "num_key_value_heads": 1},
        "yarn": _partial(0.5, YARN),
    },
    "cohere": {
        "untied": UNTIED | NORM | THETA,
        "biases": ATTENTION_BIAS | {"use_qk_norm": True, "logit_scale": 0.8, "head_dim": 12},
        "linear": LINEAR,
    },
    "cohere2": {
        "untied": UNTIED | NORM | THETA,
        "biases": ATTENTION_BIAS | {"logit_scale": 0.8},
        "layers": {"layer_types": [FULL, SLIDING, SLIDING], "sliding_window": 9},
        "pattern": {"layer_types": None, "sliding_window_pattern": 2},
        "yarn": YARN,
    },
    "exaone4": {
        "tied": TIED | RMS | THETA | {"attention_dropout": 0.1},
        "layers": {"layer_types": [FULL, SLIDING, SLIDING], "sliding_window": 9},
        "full": {"layer_types": [FULL] * LAYERS, "sliding_window": None},
        "pattern": {"layer_types": None, "sliding_window_pattern": 2},
        "head_size": {"head_dim": 12},
        "llama3": LLAMA3,
    },
    "helium": {"tied": TIED | RMS | THETA | {"pad_token_id": 5}, "biases": BIASES, "llama3": LLAMA3},
    "seed_oss": {
        "tied": TIED | RMS | THETA | {"head_dim": None},
        "biases": BIASES | {"attention_bias": False, "attention_out_bias": True, "residual_dropout": 0.2},
        "yarn": YARN,
    },
    "arcee": {"tied": TIED | RMS | THETA, "biases": BIASES | {"head_dim": 12}, "yarn": YARN},
    "nemotron": {
        "tied": TIED | _partial(0.25) | {"norm_eps": 0.02, "hidden_act": "gelu"},
        "biases": BIASES | {"head_dim": 12} | _partial(1.0),
        "linear": _partial(0.5, LINEAR),
    },
    "starcoder2": {
        "untied": UNTIED | THETA | {"norm_epsilon": 0.02, "hidden_act": "silu"},
        "unbiased": {"use_bias": False, "sliding_window": WINDOW, "head_dim": 12, "num_key_value_heads": 1},
        "dropout": {"attention_dropout": 0.1, "residual_dropout": 0.2, "embedding_dropout": 0.3},
        "linear": LINEAR,
    },
    "stablelm": {
        "tied": TIED | NORM | _partial(1.0),
        "biases": {"use_qkv_bias": True, "attention_dropout": 0.1, "hidden_dropout": 0.2},
        "parallel": {"use_parallel_residual": True, "qk_layernorm": True},
        "dynamic": _partial(0.5, DYNAMIC),
    },
    "phi": {
        "tied": TIED | _partial(0.25) | {"layer_norm_eps": 0.02, "hidden_act": "relu"},
        "dropout": {"resid_pdrop": 0.1, "embd_pdrop": 0.2, "attention_dropout": 0.3, "head_dim": 12}
        | {"num_key_value_heads": None},
        "normed": {"qk_layernorm": True},
        "yarn": _partial(0.5, YARN),
    },
    "gpt_neox": {
        "tied": TIED | _partial(1.0) | {"layer_norm_eps": 0.02, "hidden_act": "relu"},
        "sequential": {"use_parallel_residual": False, "attention_dropout": 0.1, "hidden_dropout": 0.2},
        "unbiased": {"attention_bias": False},
        "linear": _partial(0.5, LINEAR),
    },
    "opt": {
        "untied": UNTIED | {"activation_function": "gelu", "dropout": 0.1, "attention_dropout": 0.2},
        "post_norm": {"do_layer_norm_before": False},
        "projected": {"word_embed_proj_dim": 20},
        "projected_untied": UNTIED | {"word_embed_proj_dim": 20, "do_layer_norm_before": False},
        "unbiased": {"enable_bias": False, "layer_norm_elementwise_affine": False},
        "no_last_norm": {"_remove_final_layer_norm": True, "layerdrop": 0.1, "hidden_size": 16},
    },
    "gptj": {
        "tied": TIED | EPSILON | {"rotary_dim": 8, "n_inner": INNER},
        "dropout": DROPOUT,
    },
    "codegen": {
        "tied": TIED | EPSILON | {"rotary_dim": 8, "n_inner": INNER},
        "eight_heads": DROPOUT | {"n_head": 8, "rotary_dim": 2},  # Two in each of the four parts of its matrix.
    },
    "gpt_neo": {
        "untied": UNTIED | EPSILON | {"intermediate_size": INNER},
        "local": {"attention_types": [[["local"], 1], [["global"], 2]], "window_size": 9},
        "dropout": {"attention_dropout": 0.1, "embed_dropout": 0.2, "resid_dropout": 0.3},
    },
    "falcon": {
        "untied": UNTIED | THETA | {"layer_norm_epsilon": 0.02, "activation": "relu", "ffn_hidden_size": INNER},
        "biases": {"bias": True, "hidden_dropout": 0.1, "attention_dropout": 0.2},
        "all_heads": {"multi_query": False},
        "sequential": {"parallel_attn": False, "multi_query": False, "bias": True},
        "new": {"new_decoder_architecture": True, "num_kv_heads": 2},
        "new_one_norm": {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
        "alibi": {"alibi": True},
        "alibi_six_heads": dict(zip(("hidden_size", "num_attention_heads"), SIX_HEADS, strict=True))
        | {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True},
        "linear": LINEAR,
    },
    "bloom": {
        "untied": UNTIED | {"layer_norm_epsilon": 0.02, "hidden_dropout": 0.1, "attention_dropout": 0.2},
        "post_norm": {"apply_residual_connection_post_layernorm": True},
        "six_heads": dict(zip(("hidden_size", "n_head"), SIX_HEADS, strict=True)),
        "exact": {"slow_but_exact": True, "pretraining_tp": 2},
    },
    "mpt": {
        "untied": UNTIED | {"layer_norm_epsilon": 0.02},
        "six_heads": dict(zip(("d_model", "n_heads"), SIX_HEADS, strict=True)),
        "attention": {"attn_config": {"softmax_scale": 0.2, "clip_qkv": 0.8, "attn_pdrop": 0}},
    },
    "mixtral": {
        "tied": TIED | RMS | THETA | {"num_experts_per_tok": 3},
        "window": {"sliding_window": WINDOW, "head_dim": 12, "attention_dropout": 0.1},
        "routed": ROUTED | {"router_jitter_noise": 0.1},
        "linear": LINEAR,
    },
    "qwen2_moe": {
        "tied": TIED | RMS | THETA | {"qkv_bias": False, "norm_topk_prob": True},
        "head_size": {"head_dim": 12},
        "windows": SLIDES | {"layer_types": [SLIDING, FULL, SLIDING], "max_window_layers": 1, "attention_dropout": 0.1},
        "mixed": ROUTED | {"mlp_only_layers": [0], "decoder_sparse_step": 2, "num_hidden_layers": 4},
        "yarn": YARN,
    },
    "qwen3_moe": {
        "tied": TIED | RMS | THETA | {"norm_topk_prob": True},
        "biases": ATTENTION_BIAS | {"head_dim": 12},
        "windows": SLIDES,
        "mixed": ROUTED | {"mlp_only_layers": [0], "decoder_sparse_step": 2, "num_hidden_layers": 4},
        "yarn": YARN,
    },
    "olmoe": {
        "tied": TIED | RMS | THETA | {"norm_topk_prob": True},
        "biases": ATTENTION_BIAS | {"clip_qkv": 0.8},
        "routed": ROUTED,
        "linear": LINEAR,
    },
    "gpt_oss": {
        "tied": TIED | THETA | {"rms_norm_eps": 0.02},
        "unbiased": {"attention_bias": False, "attention_dropout": 0.1},
        "layers": {"layer_types": [FULL, SLIDING, SLIDING], "sliding_window": 9, "num_experts_per_tok": 3},
        "routed": ROUTED,
        "swiglu": {"swiglu_alpha": 1.2, "swiglu_limit": 0.5},
        "yarn": {"rope_parameters": None},
    },
}
"""By model type and name of the variant: the fields in which it is not the plain one."""

VARIANTS: dict[str, Fields] = {
    "-".join(filter(None, (kind, name))): {"model_type": kind, **plain, **changes}
    for kind, plain in PLAIN.items()
    for name, changes in {"": {}, **CHANGES[kind]}.items()
}
"""By name: all fields, `model_type` included, in the words of transformers 5."""
