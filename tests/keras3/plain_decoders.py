"""The plain small decoder of every type, in the words of transformers 5: small, and without dropout."""

from typing import Any

Fields = dict[str, Any]

FULL, SLIDING = "full_attention", "sliding_attention"
VOCABULARY, WIDTH, INNER, LAYERS, HEADS, POSITIONS, WINDOW = 128, 32, 40, 3, 4, 96, 16

TOKENS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
BARE: Fields = {
    **TOKENS,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": POSITIONS,
}
SIZES: Fields = BARE | {"intermediate_size": INNER, "num_key_value_heads": 2}
OF_GPT2: Fields = TOKENS | {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": POSITIONS}
OF_GEMMA: Fields = SIZES | {"head_dim": 12}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
DROPOUT = {"resid_pdrop": 0.1, "embd_pdrop": 0.2, "attn_pdrop": 0.3}
MIXED = {"sliding_window": WINDOW, "layer_types": [SLIDING, FULL, SLIDING]}
EXPERTS: Fields = {"num_experts": 4, "num_experts_per_tok": 2}

PLAIN: dict[str, Fields] = {
    "llama": SIZES,
    "qwen2": SIZES,
    "qwen3": SIZES | {"head_dim": 12},
    "gemma": OF_GEMMA,
    "gemma2": OF_GEMMA | {"sliding_window": WINDOW},
    "gemma3_text": OF_GEMMA | {"sliding_window": WINDOW, "layer_types": [SLIDING, SLIDING, FULL]},
    "mistral": SIZES | {"sliding_window": WINDOW},
    "phi3": SIZES,
    "smollm3": SIZES,
    "gpt2": OF_GPT2 | NO_DROPOUT,
    "ministral": SIZES | {"head_dim": 8, "sliding_window": WINDOW},
    "olmo": SIZES,
    "olmo2": SIZES,
    "olmo3": SIZES | MIXED,
    "granite": SIZES,
    "glm": SIZES | {"head_dim": 12},
    "glm4": SIZES | {"head_dim": 12},
    "cohere": SIZES | {"logit_scale": 0.5},
    "cohere2": SIZES | MIXED | {"logit_scale": 0.5},
    "exaone4": SIZES | MIXED,
    "helium": SIZES | {"head_dim": 8},
    "seed_oss": SIZES | {"head_dim": 12, "attention_dropout": 0.0, "residual_dropout": 0.0},
    "arcee": SIZES,
    "nemotron": SIZES,
    "starcoder2": SIZES,
    "stablelm": SIZES,
    "phi": SIZES,
    "gpt_neox": BARE | {"intermediate_size": INNER},
    "opt": BARE | {"ffn_dim": INNER, "dropout": 0.0},
    "gptj": OF_GPT2 | {"rotary_dim": 4},
    "codegen": OF_GPT2 | {"rotary_dim": 4},
    "gpt_neo": TOKENS
    | {"hidden_size": WIDTH, "num_layers": LAYERS, "num_heads": HEADS, "max_position_embeddings": POSITIONS}
    | {"attention_types": [[["global", "local"], 1], [["local"], 1]], "window_size": WINDOW},
    "falcon": BARE,
    "bloom": TOKENS | {"hidden_size": WIDTH, "n_layer": LAYERS, "n_head": HEADS},
    "mpt": TOKENS | {"d_model": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "max_seq_len": POSITIONS},
    "mixtral": SIZES | {"num_local_experts": 4},
    "qwen2_moe": SIZES | EXPERTS | {"moe_intermediate_size": 24, "shared_expert_intermediate_size": 20},
    "qwen3_moe": SIZES | EXPERTS | {"moe_intermediate_size": 24},
    "olmoe": SIZES | EXPERTS,
    "gpt_oss": SIZES
    | MIXED
    | {"head_dim": 12, "num_local_experts": 4, "num_experts_per_tok": 2}
    | {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
}
