"""The dense layers that get an adapter where none are named: those that peft takes for an architecture."""

from collections.abc import Mapping

QUERY_AND_VALUE = ("q_proj", "v_proj")

_LIKE_LLAMA = (
    *("gemma", "gemma2", "gemma3_text", "gpt_neo", "gptj", "llama", "mistral", "mixtral", "opt", "qwen2", "qwen3"),
    "stablelm",
)

TARGET_MODULES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_LIKE_LLAMA, QUERY_AND_VALUE),
    **dict.fromkeys(("bert", "electra", "roberta", "xlm-roberta"), ("query", "value")),
    **dict.fromkeys(("bloom", "falcon", "gpt_neox"), ("query_key_value",)),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), ("c_attn",)),
    "bart": QUERY_AND_VALUE,
    "codegen": ("qkv_proj",),
    "mpt": ("Wqkv",),
    "phi": ("q_proj", "v_proj", "fc1", "fc2"),
    "rwkv": ("key", "value", "receptance", "output"),
}
"""By model type; peft's `TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING`, of the causal language models."""
