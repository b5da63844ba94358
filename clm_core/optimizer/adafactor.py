"""The definition of Adafactor, for arrays of any library.

Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost" (2018), as transformers' `Adafactor`
computes it with the settings of `--optim adafactor`: no scaling by the size of a parameter, no learning rate of its
own, no first moment.
"""

from collections.abc import Mapping
from typing import Any

from clm_core.config import OptimizationOptions
from clm_core.optimizer.arrays import Array, Functions, decayed, mean_square, plain

ADDED = 1e-30
"""What is added to squared gradients."""

FORGETTING = -0.8
"""The second moment after t updates keeps 1 - t**FORGETTING of what it was."""


def adafactor(
    parameter: Array,
    gradient: Array,
    state: Mapping[str, Array],
    *,
    learning_rate: Any,
    updates: Any,
    config: OptimizationOptions,
    decays: bool,
    xp: Functions,
) -> tuple[Array, dict[str, Array]]:
    """Return a parameter and its state after an update.

    Arrays are float32. Of a matrix, the state is `row` and `col`, the means of the second moment over the last
    dimension and over the one before it; what has more dimensions is a stack of matrices. Of a vector it is `v`, the
    second moment. All are 0 before the first update. `updates` counts those of the parameter, including this one. An
    update is scaled down where its root mean square is above 1, over the whole parameter. The rest is as for `adamw`.
    """
    learning_rate, new = plain(learning_rate), plain(updates**FORGETTING)
    squares = gradient * gradient + ADDED
    if len(parameter.shape) > 1:
        row = (1.0 - new) * state["row"] + new * xp.mean(squares, axis=-1)
        col = (1.0 - new) * state["col"] + new * xp.mean(squares, axis=-2)
        of_rows = (row / xp.mean(row, axis=-1, keepdims=True)) ** -0.5
        update = of_rows[..., None] * (col**-0.5)[..., None, :] * gradient
        state = {"row": row, "col": col}
    else:
        second = (1.0 - new) * state["v"] + new * squares
        update = second**-0.5 * gradient
        state = {"v": second}
    size = mean_square(update, xp) ** 0.5
    kept = decayed(parameter, learning_rate, config) if decays else parameter
    return kept - learning_rate * (update / xp.maximum(size, xp.ones_like(size))), state


def adafactor_state(shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The shapes of the state of a parameter of this shape."""
    if len(shape) > 1:
        return {"row": shape[:-1], "col": (*shape[:-2], shape[-1])}
    return {"v": shape}
