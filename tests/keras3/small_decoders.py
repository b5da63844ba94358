"""Small PyTorch models of every type of decoder, in variants that change each field that their classes read.

tests/keras3/variants.py is the table, in the words of transformers 5; `fields` gives them in those of the installed
series. All weights are random, norms and biases too, so that no two tensors can be taken for each other unnoticed.
"""

import zlib
from importlib.metadata import version
from typing import Any

from clm_core.models.series import translated
from tests.keras3.variants import VARIANTS, Fields

SERIES = int(version("transformers").split(".")[0])

NOT_IN_4 = {
    "gpt_oss-swiglu": "its fields are fixed",
    "nemotron-linear": "its class has the default rope alone",
    "opt-unbiased": "transformers cannot initialize it",
    "qwen2_moe-head_size": "its class refuses it",
    "qwen2_moe-windows": "its windows are for all layers or none",
    "stablelm-parallel": "transformers cannot initialize it",
}
"""The variants that there are not in transformers 4.57, and why."""

UNCHANGED: dict[str, set[str]] = {
    "codegen": {"n_ctx"},
    "cohere2": {"head_dim"},
    "gemma": {"use_bidirectional_attention"},
    "gemma2": {"use_bidirectional_attention"},
    "gemma3_text": {"use_bidirectional_attention"},
    "gpt2": {"add_cross_attention", "summary_activation", "summary_first_dropout", "summary_proj_to_labels"}
    | {"summary_type", "summary_use_proj"},
    "gpt_neo": {"attention_layers", "classifier_dropout"},
    "gpt_neox": {"classifier_dropout", "is_decoder"},
    "gpt_oss": {"hidden_act"},
    "llama": {"pretraining_tp"},
    "mpt": {"emb_pdrop", "embedding_fraction", "expansion_ratio", "init_device", "learned_pos_emb", "logit_scale"}
    | {"no_bias", "norm_type", "resid_pdrop"},
    "qwen3_moe": {"num_local_experts"},
    "seed_oss": {"pretraining_tp"},
}
"""By model type: what is declared but not read, or makes something else than a decoder; no variant changes it."""


def names() -> list[str]:
    """The variants that there are in the installed series of transformers."""
    return [name for name in VARIANTS if SERIES >= 5 or name not in NOT_IN_4]


def fields(name: str) -> Fields:
    """The configuration of a variant, `model_type` included, in the words of the installed series of transformers.

    Raises:
        ModelError: the installed series has no words for one of the fields; see `NOT_IN_4`.
    """
    return translated(VARIANTS[name])


def build(name: str, **changes: Any) -> Any:
    """The model of a variant: PyTorch, float32, in evaluation mode, with the same weights at each call.

    Attention is eager, which reads every field. The logits of random tokens have a deviation between 0.3 and 5.

    Args:
        name: a key of `VARIANTS`.
        changes: fields in the words of the installed series, which replace those of the variant.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    given = fields(name) | changes
    config = AutoConfig.for_model(given.pop("model_type"), **given)
    attention = "sdpa" if given.get("alibi") else "eager"  # In eager attention Falcon adds these biases twice.
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter, tensor in model.named_parameters():
            tensor.copy_(_drawn(parameter, tensor))
    return model


def without_noise(given: Fields) -> Fields:
    """The fields of a configuration that make training random, such as dropouts, as `changes` for `build`: set to 0."""
    none: Fields = {name: 0.0 for name in given if any(part in name for part in ("drop", "jitter"))}
    if "attn_config" in given:
        none["attn_config"] = {**given["attn_config"], "attn_pdrop": 0}
    return none


def _drawn(name: str, tensor: Any) -> Any:
    """Random weights by the name of their tensor; norms and biases are scattered around the 1 or 0 they begin at.

    Larger matrices make attention so sharp that rounding alone moves logits by 1e-5 of their deviation.
    """
    import torch

    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    first = tensor.flatten()[0]
    return first + 0.25 * noise if bool((tensor == first).all()) else 0.12 * noise
