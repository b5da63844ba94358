"""The model types that `Decoder` computes: what each reads in its configuration, and what PyTorch calls its parts."""

import dataclasses
import json
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any

from clm_core.errors import ModelError
from clm_tf.keras3.families import (
    of_bloom,
    of_cohere,
    of_gemma,
    of_glm,
    of_gpt,
    of_llama,
    of_mixture,
    of_olmo,
    of_starcoder,
)
from clm_tf.keras3.layout import ACTIVATIONS, Facts, Fields, Layout

_MODULES = (of_llama, of_gemma, of_olmo, of_cohere, of_glm, of_starcoder, of_gpt, of_bloom, of_mixture)
FAMILIES: Mapping[str, Callable[[Fields], Facts]] = ChainMap(*(module.TYPES for module in _MODULES))
"""By model type: what its configuration says, as fields of a `Layout`."""

MODEL_TYPES = frozenset(FAMILIES)

COUNTS = (
    *("vocab_size", "hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "head_dim"),
    *("num_hidden_layers", "num_layers", "n_layer", "n_layers"),
    *("num_attention_heads", "num_heads", "n_head", "n_heads", "num_key_value_heads", "num_kv_heads"),
    *("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    *("moe_intermediate_size", "num_experts", "num_local_experts", "num_experts_per_tok"),
    *("max_position_embeddings", "n_positions"),
)
"""Fields of all types that are whole numbers above 0, or null for what another field says."""

DROPOUTS = tuple(field.name for field in dataclasses.fields(Layout) if field.name.endswith("_dropout"))


def layout(architecture: Any) -> Layout:
    """The layout of a `transformers.PretrainedConfig`, as transformers 4.57 or 5 has it.

    Raises:
        ModelError: its model type is none of `MODEL_TYPES`, or a field says what is not known here.
    """
    from transformers import GenerationConfig

    fields = Fields(fields_of(architecture))
    found = _read(fields)
    usual = fields_of(type(architecture)())
    for name in sorted(fields.unread() - GenerationConfig().to_dict().keys()):
        if fields[name] not in ((usual[name],) if name in usual else (None, False)):
            raise fields.refused(name, fields[name])
    return found


def fields_of(architecture: Any) -> Facts:
    """All fields of a configuration, as in a config.json that has them all."""
    found: Facts = json.loads(architecture.to_json_string(use_diff=False))
    return found


def layout_of_fields(fields: Mapping[str, Any]) -> Layout:
    """The layout of what `fields_of` returned earlier."""
    return _read(Fields(fields))


def _read(fields: Fields) -> Layout:
    kind = fields["model_type"]
    if kind not in FAMILIES:
        raise ModelError(
            f"model type {kind}: backend keras does not have it; it has {', '.join(sorted(FAMILIES))}. "
            "Use --backend pt, which has all of transformers'"
        )
    fields.expect_counts(*COUNTS)
    try:
        found = Layout(model_type=kind, **FAMILIES[kind](fields))
    except KeyError as error:
        raise ModelError(f"model type {kind}: there is no {error} in its configuration") from error
    if found.activation not in ACTIVATIONS:
        raise fields.refused(fields.named(found.activation, "act"), found.activation)
    if found.heads % found.key_value_heads:
        raise fields.refused(fields.named(found.key_value_heads, "key_value_heads", "kv_heads"), found.key_value_heads)
    for rate in (getattr(found, name) for name in DROPOUTS):
        if not (isinstance(rate, int | float) and 0 <= rate < 1):
            raise fields.refused(fields.named(rate, "drop"), rate)
    return found
