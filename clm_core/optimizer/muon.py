"""The definition of Muon, for arrays of any library.

Jordan and others, "Muon: An optimizer for hidden layers in neural networks" (2024), as `torch.optim.Muon` computes it
with `adjust_lr_fn="match_rms_adamw"` (Liu and others, "Muon is Scalable for LLM Training", 2025), so that the learning
rate and the weight decay are those of AdamW, and a matrix may be stored either way round. But it computes in float32,
where `torch.optim.Muon` iterates in bfloat16: rounded so, no two frameworks would agree.
"""

import math
from collections.abc import Mapping
from typing import Any

from clm_core.config import OptimizationOptions
from clm_core.optimizer.arrays import Array, Functions, decayed, mean_square, plain

MOMENTUM = 0.95

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial that is iterated, for the first, the third and the fifth power."""

ITERATIONS = 5

LEAST_NORM = 1e-7
"""A matrix of a smaller norm is not scaled up to 1."""

SIZE = 0.2
"""The root mean square that an update of AdamW usually has."""


def muon(
    parameter: Array,
    gradient: Array,
    state: Mapping[str, Array],
    *,
    learning_rate: Any,
    config: OptimizationOptions,
    decays: bool,
    xp: Functions,
) -> tuple[Array, dict[str, Array]]:
    """Return a matrix and its state, `momentum`, after an update; the rest is as for `adamw`.

    Arrays are float32 and of one shape. `momentum` is a running mean of gradients, 0 before the first update.
    """
    learning_rate = plain(learning_rate)
    momentum = MOMENTUM * state["momentum"] + (1.0 - MOMENTUM) * gradient
    update = orthogonal(MOMENTUM * momentum + (1.0 - MOMENTUM) * gradient, xp)  # Nesterov's.
    kept = decayed(parameter, learning_rate, config) if decays else parameter
    return kept - (learning_rate * (SIZE * math.sqrt(max(parameter.shape)))) * update, {"momentum": momentum}


def orthogonal(matrix: Array, xp: Functions) -> Array:
    """The matrix with its singular values brought near 1, about 0.7 to 1.2, by the iteration of Newton and Schulz."""
    rows, columns = matrix.shape
    found = matrix if rows <= columns else xp.swapaxes(matrix, 0, 1)
    norm = (mean_square(found, xp) * float(rows * columns)) ** 0.5
    found = found / xp.maximum(norm, LEAST_NORM * xp.ones_like(norm))
    first, third, fifth = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = found @ xp.swapaxes(found, 0, 1)
        found = first * found + (third * square + fifth * (square @ square)) @ found
    return found if rows <= columns else xp.swapaxes(found, 0, 1)
