"""The dense layers that keep their weight as (in, out): transformers' Conv1D, which GPT-2 has in place of Linear."""

from typing import Any

MODEL_TYPES = frozenset(("gpt2", "openai-gpt"))
"""The causal language models of transformers that have some."""

MODULES = frozenset(("c_attn", "q_attn", "c_proj", "c_fc"))
"""What they are called there, in their layer."""


def is_conv1d(module: str, architecture: Any) -> bool:
    """Whether a dense layer of this name keeps its weight as (in, out), in place of PyTorch's (out, in)."""
    return architecture.model_type in MODEL_TYPES and module.rpartition(".")[2] in MODULES
