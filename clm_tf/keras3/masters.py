"""Masters: the float32 weights behind bfloat16 variables, which the optimizer updates and which are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clm_core.adapters import adapter_weights
from clm_core.backend import Model
from clm_core.durable.tensors import OnDemand
from clm_tf.keras3 import weights

if TYPE_CHECKING:  # They import this module.
    from clm_tf.keras3.decoder import Decoder
    from clm_tf.keras3.optimizers import DefinedOptimizer

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Frozen:
    """Of variables that are not trained, the weights that bfloat16 does not have, by PyTorch's names and shaped so."""

    weights: dict[str, Array]


def fill(model: Decoder, optimizer: DefinedOptimizer, source: Model) -> None:
    """Have an optimizer keep the weights of bfloat16 variables as they are in `source`, if it has not come further.

    Raises:
        ModelError: they cannot be read, as of `weights.fill`.
    """
    optimizer.build(model.trainable_variables)
    variables, frozen = weights.named(model) | weights.trained(model), {}
    for name, array in _read(model, source):
        variable, flipped = variables[name]
        if (master := optimizer.master_of(variable)) is not None:
            master.assign(array.T if flipped else array)
        elif not model.adapted and not np.array_equal(_float32(weights.array_of(variable, flipped)), array):
            frozen[name] = array
    optimizer.frozen = Frozen(frozen)


def exported(model: Decoder) -> OnDemand:
    """The weights of a model as `weights.exported` has them, from the masters where there are any."""
    whole = weights.exported(model)
    masters = dict(_of(model, weights.named(model)))
    return OnDemand({name: masters.get(name, partial(whole.__getitem__, name)) for name in whole})


def trained(model: Decoder) -> OnDemand:
    """The same of what a training changes, such as an adapter."""
    variables = weights.trained(model)
    masters = dict(_of(model, variables))
    return OnDemand({name: masters.get(name, partial(weights.array_of, *pair)) for name, pair in variables.items()})


def _read(model: Decoder, source: Model) -> Iterator[tuple[str, Array]]:
    """The weights of a source, float32, as PyTorch has them; of an adapter's base only where some of it is trained."""
    own = weights.shapes_of(weights.trained(model))
    if not model.adapted or own.keys() & weights.named(model).keys():
        yield from weights.read(model, source)
    if model.adapted:
        yield from adapter_weights(source, own).items()


def _of(model: Decoder, variables: dict[str, weights.Named]) -> Iterator[tuple[str, Callable[[], Array]]]:
    """What is written for variables, by PyTorch's names, where it is not what they have themselves."""
    optimizer: Any = getattr(model, "optimizer", None)
    if not hasattr(optimizer, "master_of"):
        return
    for name, (variable, flipped) in variables.items():
        if (master := optimizer.master_of(variable)) is not None:
            yield name, partial(_exact, variable, master, flipped)
        elif name in optimizer.frozen.weights:
            yield name, partial(optimizer.frozen.weights.__getitem__, name)


def _exact(variable: Any, master: Any, flipped: bool) -> Array:
    """The master of a variable, but for what the variable was set to since."""
    half, exact = weights.array_of(variable, flipped), weights.array_of(master, flipped)
    return np.where(exact.astype(half.dtype) == half, exact, _float32(half))


def _float32(array: npt.NDArray[Any]) -> Array:
    return array.astype(np.float32)
