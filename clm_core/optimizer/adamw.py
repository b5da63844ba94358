"""The definition of AdamW, for arrays of any library.

Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), as `torch.optim.AdamW` computes it, after
`torch.nn.utils.clip_grad_norm_`.
"""

import math
from typing import Any

from clm_core.config import OptimizationOptions
from clm_core.optimizer.arrays import Array, decayed


def adamw(
    parameter: Array,
    gradient: Array,
    first: Array,
    second: Array,
    *,
    learning_rate: Any,
    corrections: tuple[Any, Any],
    config: OptimizationOptions,
    decays: bool,
) -> tuple[Array, Array, Array]:
    """Return a parameter and its two moments after an update.

    The four arrays are float32 and have the shape of the parameter; new ones are returned. `gradient` is that of the
    mean loss over the tokens of the step, clipped. Before the first update, both moments are 0. `learning_rate` is that
    of the step; `corrections` come from `bias_corrections`; `clm_core.models.decay` says whether a parameter `decays`.
    A parameter without a gradient at a step is not updated, nor does it decay, nor is the update counted.
    """
    if isinstance(learning_rate, float):  # One of NumPy would turn all arrays into float64.
        learning_rate = float(learning_rate)
    first = config.adam_beta1 * first + (1.0 - config.adam_beta1) * gradient
    second = config.adam_beta2 * second + (1.0 - config.adam_beta2) * gradient * gradient
    kept = decayed(parameter, learning_rate, config) if decays else parameter
    root = second**0.5 / corrections[1] ** 0.5 + config.adam_epsilon  # Epsilon is outside the root.
    return kept - learning_rate / corrections[0] * first / root, first, second


def bias_corrections(updates: int, config: OptimizationOptions) -> tuple[float, float]:
    """Return 1 - beta**updates for both betas, where `updates` counts the parameter's updates, including this one.

    They are computed here in float64: 1 - 0.999**t in float32 costs 2.5e-6 of the loss in the first steps.
    """
    return _one_minus_power(config.adam_beta1, updates), _one_minus_power(config.adam_beta2, updates)


def clipping_factor(norm: float, max_grad_norm: float) -> float:
    """Return the factor for all gradients of a step, whose global norm together is `norm`; a limit of 0 is none."""
    return min(1.0, clipping_ratio(float(norm), max_grad_norm)) if max_grad_norm else 1.0


def clipping_ratio(norm: Any, max_grad_norm: float) -> Any:
    """Return the limit over the global norm, a number of any library; where it is below 1, gradients are clipped."""
    return max_grad_norm / (norm + 1e-6)  # As in `torch.nn.utils.clip_grad_norm_`; a norm of 0 is no division by it.


def _one_minus_power(beta: float, updates: int) -> float:
    return -math.expm1(updates * math.log(beta)) if beta else 1.0
