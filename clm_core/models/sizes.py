"""Sizes that a model can have: at least one layer of at least one dimension, and no more layers than can be built."""

import math
import re
from typing import Any

from clm_core.errors import ModelError, OptionError
from clm_core.models.architectures import POSITIONS, text_part

LAYERS = frozenset(
    ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_blocks", "decoder_layers", "num_decoder_layers")
)
WIDTHS = frozenset(
    ("hidden_size", "d_model", "n_embd", "emb_dim", "d_embed", "embed_dim", "embedding_dim", "embedding_size")
)
HEADS = frozenset(
    ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads", "num_key_value_heads")
)
HEADS |= {"attention_heads", "num_decoder_attention_heads", "num_kv_heads", "head_dim", "d_head"}
INNER = frozenset(("intermediate_size", "n_inner", "ffn_dim", "decoder_ffn_dim", "ffn_hidden_size", "d_inner"))
"""What configurations call their sizes. Some that have no attention give no heads; those are only checked if given."""

MOST_LAYERS = 10_000
"""Layers beyond which a model is not built: the deepest that were ever trained have a tenth of it."""

ELSEWHERE = {
    "model_type": "give it as --model-type",
    **dict.fromkeys(("architectures", "transformers_version", "_name_or_path"), "clm writes it"),
    **dict.fromkeys(("dtype", "torch_dtype"), "the weights are float32"),
    **dict.fromkeys(
        ("attn_implementation", "_attn_implementation"), "how attention is computed is an option of the backend"
    ),
    **dict.fromkeys(("num_labels", "id2label", "label2id"), "a causal language model has no labels"),
}
"""Fields of a configuration that are not about a model from scratch, and what to do instead, or why."""


SHAPES = HEADS | INNER | LAYERS | WIDTHS | {"vocab_size", "tie_word_embeddings"}
"""Fields that the shapes of weights follow from, or what their numbers are for."""

COUNTS = re.compile(r"(^|_)(num|n)_\w*experts$|_(rank|dim|dims)$|(^|_)bias$")
"""The same, by how they are called: counts of experts, other widths, and biases that there are or not."""

LEARNED_POSITIONS = frozenset(
    ("bert", "biogpt", "camembert", "gpt-sw3", "gpt2", "gpt_bigcode", "gpt_neo", "openai-gpt", "opt", "rembert")
)
LEARNED_POSITIONS |= {"roberta", "roberta-prelayernorm", "xlm", "xlm-roberta"}
"""Model types that have a weight for each position."""


def decides_shapes(architecture: Any, name: str) -> bool:
    """Whether the weights of a model are made for the value of a field, as far as that shows in its name."""
    kind, names = architecture.model_type, architecture.attribute_map
    of_positions = kind in LEARNED_POSITIONS and name in {names.get(each, each) for each in POSITIONS}
    return of_positions or name in {names.get(each, each) for each in SHAPES} | SHAPES or bool(COUNTS.search(name))


def check_override(given: str, name: str, value: Any) -> None:
    """Make sure that a field that someone has set is a model's, and can be; `given` is the name that was used for it.

    Raises:
        OptionError: it is not.
    """
    if name in ELSEWHERE:
        raise OptionError(f"{given} cannot be changed here: {ELSEWHERE[name]}")
    if fault := _fault(name, value, LAYERS | WIDTHS | HEADS | INNER):
        raise OptionError(f"{given} {fault}")


def check_sizes(architecture: Any) -> None:
    """Make sure that a configuration, whoever wrote it, is one of a model that can be built.

    Raises:
        ModelError: it is not.
    """
    text = text_part(architecture)
    for name, value in vars(text).items():
        if name in LAYERS | WIDTHS and (fault := _fault(name, value, LAYERS | WIDTHS)):
            raise ModelError(f"the configuration of the model cannot be: {name} {fault}")


def _fault(name: str, value: Any, sizes: frozenset[str]) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not math.isfinite(value):
        return f"is a number, not {value}"
    if name in sizes and value < 1:
        return f"is at least 1, not {value}"
    if name in LAYERS and value > MOST_LAYERS:
        return f"is at most {MOST_LAYERS:,}, not {value:,}"
    if name.endswith(("window", "window_size")) and value < 1:
        return f"is at least 1, not {value}"
    if "drop" in name and not 0 <= value < 1:
        return f"is a share of what is dropped, at least 0 and below 1, not {value}"
    if isinstance(value, float) and value < 0 and name.endswith(("_range", "_std", "_eps", "_epsilon")):
        return f"is at least 0, not {value}"
    return None
