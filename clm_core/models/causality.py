"""Makes a configuration causal, and checks that no token of a loaded model sees later ones.

An encoder trained to predict the next token without this learns to copy it: its loss falls to nothing, and it is
useless.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from clm_core.errors import ModelError, first_line
from clm_core.models.architectures import count_embeddings, count_positions

ENCODERS = (
    *("bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert"),
    *("qdqbert", "reformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta"),
    *("xlm-roberta-xl", "xmod"),
)
SETTINGS: dict[str, dict[str, Any]] = {
    **{kind: {"is_decoder": True} for kind in ENCODERS},
    "mega": {"is_decoder": True, "bidirectional": False},
    "xlm": {"causal": True},
    "xlnet": {"attn_type": "uni"},
}
"""By model type: the fields that decide whether a token attends to later ones, with the values that prevent it."""

GENERATE_PLAINLY = frozenset(("mega", "open-llama", "prophetnet", "xlm", "xlm-prophetnet", "xlnet"))
"""The model types for which transformers generates in another way (with a mask token, a second stream of queries) than
they are trained here, or whose cache fails; to generate, they get the whole text, and nothing else, for each token."""

LENGTH = 8
MOVED = 1e-5
"""Relative to the largest logit. Rounding depends on how tokens are grouped, as in a mixture of experts."""
MOVED_IN_BFLOAT16 = 2e-2
"""The same for a model that computes in bfloat16."""
LARGEST_TRAINED = 1000.0
"""No logit of a model that has learned anything is larger; those of a training that diverged are."""


def make_causal(architecture: Any) -> str | None:
    """Set a configuration so that no token attends to later ones; returns a sentence on the change, if there is one."""
    wanted = SETTINGS.get(architecture.model_type, {})
    changed = {name: value for name, value in wanted.items() if getattr(architecture, name, None) != value}
    for name, value in changed.items():
        setattr(architecture, name, value)
    settings = " and ".join(f"{name}={value}" for name, value in changed.items())
    sentence = f"{architecture.model_type}: set {settings}, so that no token can attend to the tokens it should predict"
    return sentence if changed else None


def check_causal(
    logits: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]], architecture: Any, *, rounded: bool = False
) -> None:
    """Change the last token of a text, and check that the logits before it stay the same.

    `logits` takes token ids of shape (1, length) and returns (1, length, vocabulary), in inference mode; they may be
    `rounded`, as in bfloat16.

    Raises:
        ModelError: they do not, or the model does not work with text alone.
    """
    length, rows = count_positions(architecture) or LENGTH, count_embeddings(architecture) or LENGTH
    ids = np.arange(min(LENGTH, length), dtype=np.int64)[None] % rows
    changed = ids.copy()
    changed[0, -1] = (changed[0, -1] + 1) % rows
    kind = architecture.model_type
    try:
        one, other = logits(ids), logits(changed)
    except Exception as error:  # Whatever a class may raise that was not made for text, or not for text alone.
        raise ModelError(f"model type {kind} does not work with text alone: {first_line(error)}") from error
    moved = MOVED_IN_BFLOAT16 if rounded else MOVED
    largest = np.abs(one).max()
    if np.abs(one - other)[0, :-1].max() > moved * largest:
        if largest > LARGEST_TRAINED:  # A mask adds a large negative number to the scores, and they exceed it.
            raise ModelError(
                f"the weights of this {kind} have diverged, so that its tokens attend to the tokens they should "
                f"predict: a logit is {largest:,.0f}; begin with other weights, as of an earlier checkpoint"
            )
        raise ModelError(
            f"model type {kind} is not a causal language model as configured: its tokens can attend to the tokens they "
            "should predict"
        )
