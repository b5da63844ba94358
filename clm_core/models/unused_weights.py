"""Tensors of a weight file that the model does not use: an error that names them.

A model without a tensor of its file is another model: with fewer layers, without its adapter, its biases, its relative
positions. Only these, which real checkpoints contain besides a model, are accepted:

- what the class of the model itself declares as ignored (the backend leaves it out);
- buffers that older versions of a class saved and that are computed today: causal masks (zeros and ones, nothing above
  the diagonal), the score of a masked position, positions counted from 0, frequencies of rotary embeddings, sinusoids;
- an output layer equal to the input embeddings, if the model has no separate one, and a copy of its bias;
- the heads of other tasks, which lie behind the model of the text: poolers, next-sentence heads, classifiers.

`--ignore-unused-weights` accepts all others too.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from clm_core.backend import Model
from clm_core.errors import ModelError
from clm_core.models.weight_files import of_overrides

Array = npt.NDArray[Any]

COMPUTED = re.compile(
    r"(inv_freq|cos_cached|sin_cached|(^|\.)position_ids|(^|\.)token_type_ids|embed_positions\.weights"
    r"|(^|\.)version|_float_tensor)$"
)
MASK = re.compile(r"(^|\.)(bias|mask|causal_mask|masked_bias)$")
OTHER_TASKS = re.compile(
    r"(^|\.)pooler\.|^cls\.seq_relationship\.|^(sop_classifier|nsp_classifier|classifier|classification_head|score"
    r"|qa_outputs|summary|sequence_summary|multiple_choice_head|logits_proj|v_head)\."
)
OUTPUT = re.compile(
    r"(^|\.)(lm_head|lm_loss|generator_lm_head|embed_out|output_projection|pred_layer\.proj"
    r"|(lm_head|predictions)\.decoder)\.weight$"
)
"""An output layer, as it is called in any class."""
OUTPUT_BIAS = re.compile(r"((^|\.)(lm_head|predictions))\.decoder\.bias$")

SHOWN = 5


def check_unused(
    model: Model, unused: Iterable[str], read: Callable[[str], Array], input_embeddings: Callable[[], Array]
) -> None:
    """Make sure that the tensors of a file that a model has no use for are none that make it another model.

    `read` returns a tensor of the file, of any number type, and `input_embeddings` those of the model as it was loaded.

    Raises:
        ModelError: they do, and are named, unless the model is to ignore them; or they are an output layer that differs
            from the input embeddings which the model would use instead.
    """
    refused = []
    for name in sorted(unused):
        if OUTPUT.search(name):
            check_tied(model, name, read(name), "the input embeddings", input_embeddings())
        elif OUTPUT_BIAS.search(name):
            other = OUTPUT_BIAS.sub(r"\1.bias", name)
            check_tied(model, name, read(name), other, read(other))
        elif not (COMPUTED.search(name) or OTHER_TASKS.search(name) or (MASK.search(name) and is_mask(read(name)))):
            refused.append(name)
    if refused and not model.ignore_unused_weights:
        kind, more = model.architecture.model_type, f" and {len(refused) - SHOWN} more" * (len(refused) > SHOWN)
        raise ModelError(
            f"{model.name_or_path} contains tensors that a {kind} as configured in its config.json does not use: "
            f"{', '.join(refused[:SHOWN])}{more}; without them it is another model: complete the configuration, merge "
            f"the adapter, or leave them out with --ignore-unused-weights{of_overrides(model)}"
        )


def check_tied(model: Model, name: str, tensor: Array, other: str, expected: Array) -> None:
    """Make sure that two tensors are equal, of which a model as it is configured has only one, `other`.

    Raises:
        ModelError: they are not.
    """
    if tensor.shape != expected.shape or not np.array_equal(tensor.astype(np.float32), expected.astype(np.float32)):
        raise ModelError(
            f"{model.name_or_path}: {name} differs from {other}, which a {model.architecture.model_type} as "
            'configured uses in its place: if both are right, set "tie_word_embeddings": false in config.json'
        )


def is_mask(array: Array) -> bool:
    """Whether an array is a causal mask, of shape (1, 1, length, length), or the one score of a masked position."""
    if array.size == 1:
        return True
    if array.ndim != 4 or array.shape[:2] != (1, 1) or array.shape[2] != array.shape[3]:
        return False
    square = array[0, 0].astype(np.float32)
    return bool(np.isin(square, (0.0, 1.0)).all() and not np.triu(square, 1).any())
