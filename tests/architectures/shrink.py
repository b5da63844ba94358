"""Tiny configurations of any architecture: what counts layers, widths and entries is made small, by its name."""

import inspect
from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig

VOCABULARY, POSITIONS = 65, 128  # An entry for padding, from which some count their positions.
WIDTH, HEADS, INNER, LAYERS, EXPERTS = 32, 4, 64, 2, 4


def _named(names: str, size: int) -> dict[str, int]:
    return dict.fromkeys(names.split(), size)


SIZES: dict[str, int] = {
    **_named("vocab_size unpadded_vocab_size decoder_vocab_size vocab_size_per_layer_input", VOCABULARY),
    **_named("audio_vocab_size pronunciation_vocab_size shape_vocab_size encoder_hash_byte_group_vocab", VOCABULARY),
    **_named("max_position_embeddings n_positions n_ctx max_seq_len context_length model_max_length", POSITIONS),
    **_named("max_target_positions max_positions original_max_position_embeddings", POSITIONS),
    **_named("hidden_size d_model n_embd emb_dim d_embed embedding_dim embed_dim embedding_size dim_model", WIDTH),
    **_named("word_embed_proj_dim attention_hidden_size lru_width hidden_size_global input_size", WIDTH),
    **_named("input_embedding_size output_embedding_size pronunciation_embed_dim shape_embed_dim", WIDTH),
    **_named("prompt_mid_dim kv_channels ple_embed_dim adapter_input_size adapter_in_dim adapter_out_dim", WIDTH),
    **_named("num_attention_heads n_head n_heads num_heads attention_heads encoder_attention_heads", HEADS),
    **_named("decoder_attention_heads num_encoder_attention_heads num_decoder_attention_heads", HEADS),
    **_named("num_query_groups linear_num_key_heads linear_num_value_heads linear_num_heads index_n_heads", HEADS),
    **_named("swa_num_attention_heads mamba_num_heads hc_lowrank", HEADS),
    **_named("head_dim d_head dim_head attention_head_size v_head_dim swa_head_dim mamba_head_dim", WIDTH // HEADS),
    **_named("linear_key_head_dim linear_value_head_dim linear_head_dim query_pre_attn_scalar", WIDTH // HEADS),
    **_named("qk_nope_head_dim qk_rope_head_dim index_head_dim global_head_dim", WIDTH // HEADS),
    **_named("num_key_value_heads num_kv_heads swa_num_key_value_heads kv_n_heads num_global_key_value_heads", 2),
    **_named("kv_lora_rank q_lora_rank o_lora_rank adapter_rank laurel_rank hidden_size_per_layer_input", 8),
    **_named("intermediate_size ffn_dim encoder_ffn_dim decoder_ffn_dim ffn_hidden_size intermediate_size_mlp", INNER),
    **_named("d_inner dff dim_ff feed_forward_size mlp_dim moe_intermediate_size expert_ffn_hidden_size", INNER),
    **_named("shared_intermediate_size shared_expert_intermediate_size nffn_hidden_size", INNER),
    **_named("moe_shared_expert_intermediate_size shared_experts_intermediate_size router_hidden_size", INNER),
    **_named("num_hidden_layers n_layer n_layers num_layers num_blocks encoder_layers decoder_layers", LAYERS),
    **_named("num_encoder_layers num_decoder_layers", LAYERS),
    **_named("num_experts num_local_experts n_routed_experts moe_num_experts zero_expert_num", EXPERTS),
    **_named("num_experts_per_tok num_experts_per_token moe_k moe_topk moe_top_k", 2),
    **_named("n_group num_expert_group topk_group first_k_dense_replace num_kv_shared_layers n_groups", 1),
    **_named("num_dense_layers", 1),
    **_named("sliding_window sliding_window_size window_size attention_window_size attention_chunk_size", 8),
    **_named("rotary_dim time_step_rank mamba_dt_rank", 4),
    **_named("state_size ssm_state_size mamba_d_state mamba_chunk_size index_topk", 8),
}
"""The tiny size of each field that has one; a field that is smaller already is left."""

MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_ssm": 64}
EXCEPTIONS: dict[str, dict[str, Any]] = {
    "bamba": {**MAMBA, "attn_layer_indices": [1]},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dory": {
        "num_hidden_layers": 6,
        "n_input_layers": 2,
        "n_recurrent_layers": 2,
        "n_output_layers": 2,
        "layer_types": ["sliding_attention", "mlp", "full_attention", "mlp", "sliding_attention", "mlp"],
    },
    "dots1": {"n_routed_experts": EXPERTS, "n_shared_experts": 1, "num_experts_per_tok": 2, "num_key_value_heads": 2},
    "falcon_h1": MAMBA,
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "intermediate_size": [INNER] * 4,
        "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0],
    },
    "gpt_neo": {"attention_types": [[["global", "local"], LAYERS // 2]]},
    "granitemoehybrid": {**MAMBA, "layer_types": ["mamba", "attention"]},
    "hrm_text": {"num_hidden_layers": 8, "num_layers_per_stack": 1},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "jamba": {"use_mamba_kernels": False, "attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {"qk_head_dim": 16},
    "mamba2": {"num_heads": 8, "head_dim": 8, "chunk_size": 8},
    "ministral": {"head_dim": 8},
    "mllama": {"text_config": {"cross_attention_layers": [1], "rope_scaling": {"rope_type": "default"}}},
    "nemotron": {"head_dim": 8, "num_key_value_heads": 2},
    "phi4_multimodal": {  # Its class leaves it out where it is not given.
        "vision_config": {"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": 1}
    },
    "prophetnet": {"disable_ngram_loss": True},  # Or its training is refused: clm trains on the next token alone.
    "qwen4_exp_text": {
        "indexer_n_heads": HEADS,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 4,
    },
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {"is_decoder": True, "axial_pos_shape": [4, 4], "axial_pos_embds_dim": [8, 24]},
    "transfo-xl": {"cutoffs": [16, 32], "div_val": 2},
    "xlm-prophetnet": {"disable_ngram_loss": True},
    "xmod": {"default_language": "en_XX"},
    "xlstm": {"hidden_size": 128, "embedding_dim": 128},
    "zamba": {
        "use_mamba_kernels": False,
        "num_hidden_layers": 4,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
    "zamba2": {"num_hidden_layers": 4, "hybrid_layer_ids": [1, 3], "mamba_headdim": 8, "n_mamba_heads": 8},
}
"""What an architecture needs besides, because its sizes depend on each other in a way of its own."""


def shrink(model_type: str) -> PretrainedConfig:
    """A tiny configuration of an architecture, of its own class, with defaults for whatever is no size."""
    config = CONFIG_MAPPING[model_type]()
    return type(config)(**tiny_fields(config, EXCEPTIONS.get(model_type, {})))


def tiny_fields(config: PretrainedConfig, exceptions: dict[str, Any]) -> dict[str, Any]:
    """What the class of a configuration is to be given to be tiny; fields that it takes from others are left to it."""
    given, values = inspect.signature(type(config).__init__).parameters, config.to_dict()
    named = {name: values.get(config.attribute_map.get(name, name)) for name in given}
    layers = next((named[name] for name in ("num_hidden_layers", "n_layer", "n_layers") if named.get(name)), None)
    few = exceptions.get("num_hidden_layers", LAYERS)
    tiny = {name: _tiny(name, value, layers, few) for name, value in named.items() if value is not None}
    if named.get("num_key_value_heads") and named["num_key_value_heads"] == named.get("num_attention_heads"):
        tiny["num_key_value_heads"] = tiny["num_attention_heads"]
    parts = {name: part for name in given if isinstance(part := vars(config).get(name), PretrainedConfig)}
    tiny |= {name: value for name, value in exceptions.items() if name not in parts}
    for name, part in parts.items():
        own = {**EXCEPTIONS.get(part.model_type, {}), **exceptions.get(name, {})}
        tiny[name] = {**tiny_fields(part, own), "model_type": part.model_type}
    return tiny


def _tiny(name: str, value: Any, layers: int | None, few: int) -> Any:
    if name.endswith(("token_id", "token_index")) and isinstance(value, int) and value >= VOCABULARY:
        return VOCABULARY - 1
    if name == "per_layer_config":
        return {layer: changes for layer, changes in value.items() if int(layer) < few} or None
    if isinstance(value, bool) or not isinstance(value, int | list | tuple):
        return value
    if isinstance(value, int):
        return min(value, SIZES.get(name, value))
    if layers and len(value) == layers:
        return _one_of_each([_tiny(name, kind, None, few) for kind in value], few)
    return value


def _one_of_each(kinds: list[Any], count: int) -> list[Any]:
    """A kind for each of the layers that are left, and different ones if there are."""
    distinct = [kind for place, kind in enumerate(kinds) if kind not in kinds[:place]]
    return (distinct * count)[:count]
