"""Facts about an architecture, read from its configuration: vocabulary, positions, extra losses."""

import math
from typing import Any

COUNT_FROM_PADDING = frozenset(
    ("camembert", "data2vec-text", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod")
)
"""The model types whose first position is the one after pad_token_id, which they need."""

COUNT_AHEAD = frozenset(("prophetnet", "xlm-prophetnet"))
"""Those that start there too, and also look up the position after the last token."""

POSITIONS = ("max_position_embeddings", "max_seq_len", "max_target_positions")
"""What configurations call the number of positions."""

WITHOUT_PLACES = frozenset(("dbrx", "inkling2_loop_text", "inkling2_text", "inkling_text", "jamba", "kimi_linear"))
WITHOUT_PLACES |= {"nemotron_h", "rwkv", "zamba"}
"""The model types that work beyond their positions, though none of their fields says that positions rotate."""

MORE_LOSS: dict[str, tuple[Any, ...]] = {
    "output_router_logits": (False,),
    "z_loss_coefficient": (0,),
    "mtp_loss_scaling_factor": (0,),
    "aux_loss_alpha": (0, 0.001),  # Any checkpoint of DeepSeek has it, and no class of transformers uses it.
    "disable_ngram_loss": (True,),
}
"""The fields that add to the loss of the next token, and the values with which they do not."""


def text_part(architecture: Any) -> Any:
    """The configuration for text: a part of the whole, if there are parts for images or sound."""
    part = architecture.get_text_config(decoder=True)  # For some, a copy that changes nothing.
    return part if any(value is part for value in vars(architecture).values()) else architecture


def count_embeddings(architecture: Any) -> int | None:
    """How many token embeddings there are; None if unknown."""
    rows: int | None = getattr(text_part(architecture), "vocab_size", None)
    return rows


def count_positions(architecture: Any) -> int | None:
    """How many tokens a text may have; None if no limit is known."""
    text = text_part(architecture)
    given = [getattr(text, name, None) for name in POSITIONS]
    positions: int | None = next((number for number in given if number is not None), None)
    if positions is None or positions < 0:  # Some give -1 for no limit.
        return None
    if text.model_type in COUNT_FROM_PADDING | COUNT_AHEAD:
        return positions - int(text.pad_token_id) - (2 if text.model_type in COUNT_AHEAD else 1)
    if text.model_type == "reformer" and text.axial_pos_embds:  # A position for each pair of a row and a column.
        return min(positions, math.prod(map(int, text.axial_pos_shape)))
    return positions


def position_table_size(architecture: Any) -> int | None:
    """How many positions there are in a table, learned or computed, beyond which a model fails.

    None if there is no table: most of today's models rotate positions and work beyond them, if not well.
    """
    text = text_part(architecture)
    rotates = text.model_type in WITHOUT_PLACES or any("rope" in name for name in vars(text))
    return None if rotates else count_positions(architecture)


def asks_for_more_loss(architecture: Any) -> str | None:
    """The field, with its value, by which a configuration adds to the loss of the next token, if any."""
    fields = vars(text_part(architecture))
    coefficients = [value for name, value in fields.items() if name.endswith("aux_loss_coef")]
    for name, without in MORE_LOSS.items():
        unused = name == "output_router_logits" and coefficients and not any(coefficients)
        if fields.get(name) not in (None, *without) and not unused:
            return f"{name} {fields[name]}"
    return None
