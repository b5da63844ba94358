"""Arrays of any library, and the functions that updates need of it besides operators."""

from typing import Any, TypeAlias

from clm_core.config import OptimizationOptions

Array: TypeAlias = Any
"""Of NumPy, JAX, PyTorch or another library."""

Functions: TypeAlias = Any
"""A module with NumPy's `maximum`, `mean`, `ones_like` and `swapaxes` for such arrays: `numpy`, `jax.numpy`, `torch`,
`keras.ops`, `tensorflow.experimental.numpy`."""


def plain(number: Any) -> Any:
    """A number of Python for one of NumPy, which would turn all arrays into float64."""
    return float(number) if isinstance(number, float) else number


def decayed(parameter: Array, learning_rate: Any, config: OptimizationOptions) -> Array:
    """A parameter after its decay, which does not depend on its gradient (https://arxiv.org/abs/1711.05101)."""
    return parameter * (1.0 - learning_rate * config.weight_decay)


def mean_square(array: Array, xp: Functions) -> Array:
    """The mean of the squares of all numbers, with as many dimensions as the array has."""
    squares = array * array
    for axis in range(len(array.shape)):
        squares = xp.mean(squares, axis=axis, keepdims=True)
    return squares
