"""In which type a model has its weights in its files, which is what `dtype` may follow."""

import math
from typing import Literal

from clm_core.backend import Model
from clm_core.config import BFLOAT16, FLOAT32
from clm_core.models.weight_files import StoredWeights

HALF = "BF16"
"""What safetensors calls bfloat16."""


def dtype_in_files(model: Model) -> Literal["float32", "bfloat16"]:
    """The value of `dtype` that a model has in its files: bfloat16 if most of its numbers are, otherwise float32.

    What is float16 there is exact in float32, and would be rounded in bfloat16. Of a model with an adapter, it is that
    of the base.

    Raises:
        ModelError: there are no files that can be read.
    """
    stored = StoredWeights.of(model)
    counts = {name: math.prod(shape) for name, shape in stored.shapes.items()}
    halves = sum(count for name, count in counts.items() if stored.types[name] == HALF)
    return BFLOAT16 if 2 * halves > sum(counts.values()) else FLOAT32
