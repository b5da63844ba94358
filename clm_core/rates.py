"""Learning rates over the steps of a training: a function for each schedule, under transformers' name for it.

A new schedule is a new function here. What it takes by keyword is what `lr_scheduler_kwargs` sets, each with its kind.
The names are needed to print help, so NumPy is imported where it computes.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

from clm_core.counts import with_noun

Rates: TypeAlias = Any
"""Of each step asked for: float64."""

Positive = Annotated[float, "a number above 0", lambda value: value > 0]
NotNegative = Annotated[float, "a number, 0 or above", lambda value: value >= 0]
Share = Annotated[float, "a number from 0 to 1", lambda value: 0 <= value <= 1]
Steps = Annotated[int, "a whole number, 0 or above", lambda value: value >= 0]
Shape = Literal["linear", "cosine", "1-sqrt"]
"""Kinds of arguments: what each must be, and whether it is."""

SCHEDULES: dict[str, Callable[..., Rates]] = {}
"""The functions by their names: each takes an `Extent`, and the arguments of its own."""

_FOLLOWS = "it changes the learning rate by the losses, and here that of each step is known before the training"

REFUSED = dict.fromkeys(("reduce_lr_on_plateau", "greedy"), _FOLLOWS)
"""Schedules of transformers that there are not, and why."""


@dataclass(frozen=True)
class Extent:
    """The steps whose learning rates are asked for, and the training that they are of."""

    steps: Any
    """How many steps were made before each: int64, of shape (steps,)."""
    total: int
    warmup: int
    peak: float
    """The learning rate after the warmup, which none exceeds."""

    @property
    def after_warmup(self) -> Any:
        """How many of the steps before each came after the warmup; below 0 during it."""
        return self.steps - self.warmup

    @property
    def decaying(self) -> int:
        """The steps after the warmup, at least one."""
        return max(1, self.total - self.warmup)


def rates(name: str, extent: Extent, arguments: str | None = None) -> Rates:
    """The learning rates of a schedule.

    Raises:
        ValueError: there is no such schedule, or it cannot have these arguments.
    """
    if name not in SCHEDULES:
        raise ValueError(f"there is no formula for lr_scheduler_type {name}")
    return SCHEDULES[name](extent, **parsed(name, arguments))


@functools.lru_cache(maxsize=64)
def parsed(name: str, text: str | None) -> dict[str, Any]:
    """The arguments of a schedule, from `key=value,...` or a JSON object.

    Raises:
        ValueError: one is unknown, of another kind, or out of its range.
    """
    known = {key: kind for key, kind in _hints(name).items() if key not in ("extent", "return")}
    found: dict[str, Any] = {}
    for key, value in _pairs(text or ""):
        if key not in known:
            takes = f"takes {', '.join(known)}" if known else "takes none"
            raise ValueError(f"lr_scheduler_type {name} has no argument {key}: it {takes}")
        if key in found:
            raise ValueError(f"{key} is given twice")
        found[key] = _converted(key, known[key], value)
    parameters = inspect.signature(SCHEDULES[name]).parameters
    if missing := [key for key in known if key not in found and parameters[key].default is inspect.Parameter.empty]:
        raise ValueError(f"lr_scheduler_type {name} needs {', '.join(f'{key}=...' for key in missing)}")
    return found


def _schedule(function: Callable[..., Rates]) -> Callable[..., Rates]:
    SCHEDULES[function.__name__] = function
    return function


def _warmed_up(function: Callable[..., Rates]) -> Callable[..., Rates]:
    """The schedule with a linear warmup before it."""

    @functools.wraps(function)
    def found(extent: Extent, **arguments: Any) -> Rates:
        rising = extent.peak * extent.steps / max(1, extent.warmup)
        return _chosen(extent.after_warmup < 0, rising, function(extent, **arguments))

    return found


@_schedule
@_warmed_up
def linear(extent: Extent) -> Rates:
    """Falls to 0 in a line."""
    return extent.peak * (extent.total - extent.steps).clip(min=0) / extent.decaying


@_schedule
@_warmed_up
def cosine(extent: Extent, *, num_cycles: Positive = 0.5) -> Rates:
    """Follows the cosine: by default, half a wave, to 0."""
    return extent.peak * _wave((extent.after_warmup / extent.decaying).clip(max=1.0), num_cycles)


@_schedule
@_warmed_up
def cosine_with_restarts(extent: Extent, *, num_cycles: Positive = 1.0) -> Rates:
    """Falls to 0 by the cosine `num_cycles` times, each time from the peak."""
    progress = extent.after_warmup / extent.decaying
    return extent.peak * _chosen(progress >= 1.0, 0.0, _wave((num_cycles * progress) % 1.0, 0.5))


@_schedule
@_warmed_up
def polynomial(extent: Extent, *, lr_end: NotNegative = 1e-7, power: NotNegative = 1.0) -> Rates:
    """Falls to `lr_end` by a power of the steps that are left."""
    if lr_end >= extent.peak:
        raise ValueError(f"lr_end {lr_end:g} is not below learning_rate {extent.peak:g}")
    left = (1 - extent.after_warmup / extent.decaying).clip(min=0.0, max=1.0)
    return (extent.peak - lr_end) * _each(lambda share: math.pow(share, power), left) + lr_end


@_schedule
@_warmed_up
def constant(extent: Extent) -> Rates:
    """Stays; without a warmup."""
    return extent.peak + 0.0 * extent.steps


@_schedule
@_warmed_up
def constant_with_warmup(extent: Extent) -> Rates:
    """Stays."""
    return extent.peak + 0.0 * extent.steps


@_schedule
@_warmed_up
def inverse_sqrt(extent: Extent, *, timescale: Positive | None = None) -> Rates:
    """Falls with the root of the steps; `timescale` is by default the warmup or, without one, 10,000 steps."""
    scale = timescale or extent.warmup or 10_000
    past = (extent.after_warmup.clip(min=0) + scale) / scale
    return extent.peak * (1.0 / _each(math.sqrt, past))


@_schedule
@_warmed_up
def cosine_with_min_lr(
    extent: Extent, *, num_cycles: Positive = 0.5, min_lr: NotNegative | None = None, min_lr_rate: Share | None = None
) -> Rates:
    """Follows the cosine to a lowest rate, given as it is or as a share of the peak."""
    least = _least(extent, min_lr, min_lr_rate)
    return extent.peak * _above(least, _wave(extent.after_warmup / extent.decaying, num_cycles))


@_schedule
def cosine_warmup_with_min_lr(
    extent: Extent,
    *,
    num_cycles: Positive = 0.5,
    min_lr: NotNegative | None = None,
    min_lr_rate: Share | None = None,
    warmup_lr_rate: Share | None = None,
) -> Rates:
    """The same one step earlier; the warmup begins above 0, at `warmup_lr_rate` of the peak if that is given."""
    least = _least(extent, min_lr, min_lr_rate)
    if warmup_lr_rate is None:
        rising = (extent.steps + 1.0) / max(1, extent.warmup)
    else:
        rising = warmup_lr_rate + (1.0 - warmup_lr_rate) * extent.steps / max(1, extent.warmup - 1)
    falling = _above(least, _wave((extent.after_warmup + 1.0) / extent.decaying, num_cycles))
    return extent.peak * _chosen(extent.after_warmup < 0, rising, falling)


@_schedule
def warmup_stable_decay(
    extent: Extent,
    *,
    num_decay_steps: Steps,
    num_stable_steps: Steps | None = None,
    warmup_type: Shape = "linear",
    decay_type: Shape = "cosine",
    min_lr_ratio: Share = 0.0,
    num_cycles: Positive = 0.5,
) -> Rates:
    """Rises, stays, and falls over the last `num_decay_steps`; from and to `min_lr_ratio` of the peak."""
    left = extent.total - extent.warmup
    if num_decay_steps > left:
        raise ValueError(
            f"num_decay_steps {num_decay_steps} is more than the {with_noun(left, 'step')} after the warmup"
        )
    stable = left - num_decay_steps if num_stable_steps is None else num_stable_steps
    decayed = extent.after_warmup - stable
    # Where a part does not apply, its share would be out of the functions' range.
    rising = _risen(warmup_type, (extent.steps / max(1, extent.warmup)).clip(max=1.0))
    falling = _fallen(decay_type, (decayed / max(1, num_decay_steps)).clip(min=0.0, max=1.0), num_cycles)
    ending = _chosen(decayed < num_decay_steps, _above(min_lr_ratio, falling), min_lr_ratio)
    staying = _chosen(decayed < 0, 1.0, ending)
    return extent.peak * _chosen(extent.after_warmup < 0, _above(min_lr_ratio, rising), staying)


def _hints(name: str) -> dict[str, Any]:
    return get_type_hints(SCHEDULES[name], include_extras=True)


def _pairs(text: str) -> list[tuple[str, str]]:
    if text.lstrip().startswith("{"):  # As transformers' own command line takes it.
        try:
            return [(key, str(value)) for key, value in json.loads(text, object_pairs_hook=list)]
        except (ValueError, TypeError, RecursionError):
            raise ValueError("it is neither KEY=VALUE,... nor an object of JSON") from None
    pairs = [[part.strip() for part in pair.partition("=")] for pair in text.split(",") if text.strip()]
    if wrong := next((pair for pair in pairs if not all(pair)), None):
        raise ValueError(f"{''.join(wrong)!r} is not of the form KEY=VALUE, with a comma between two")
    return [(key, value) for key, _, value in pairs]


def _converted(key: str, kind: Any, text: str) -> Any:
    kind = next((one for one in get_args(kind) if one is not type(None)), kind) if _is_optional(kind) else kind
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise ValueError(f"{key} is one of {', '.join(get_args(kind))}, not {text}")
        return text
    number, expected, check = get_args(kind)
    try:
        value = float(text)
        if math.isfinite(value) and value == number(value) and check(value):
            return number(value)
    except ValueError:
        pass
    raise ValueError(f"{key} is {expected}, not {text}")


def _is_optional(kind: Any) -> bool:
    return type(None) in get_args(kind)


def _least(extent: Extent, rate: float | None, share: float | None) -> float:
    """The lowest rate as a share of the peak."""
    if (rate is None) == (share is None):
        raise ValueError("it needs either min_lr=... or min_lr_rate=..., which is a share of learning_rate")
    if rate is not None and rate > extent.peak:
        raise ValueError(f"min_lr {rate:g} is above learning_rate {extent.peak:g}")
    return share if rate is None else rate / extent.peak  # type: ignore[return-value]


def _above(least: float, factors: Rates) -> Rates:
    return factors * (1 - least) + least


def _wave(progress: Rates, cycles: float) -> Rates:
    """`cycles` waves of the cosine between 1 and 0, from 1."""
    # Not NumPy's cosine, whose last bit depends on the machine.
    return 0.5 * (1.0 + _each(math.cos, math.pi * cycles * 2.0 * progress))


def _risen(shape: str, progress: Rates) -> Rates:
    """From 0 to 1."""
    if shape == "cosine":
        return 0.5 * (1.0 - _each(math.cos, math.pi * progress))
    return progress if shape == "linear" else 1.0 - _each(math.sqrt, 1.0 - progress)


def _fallen(shape: str, progress: Rates, cycles: float) -> Rates:
    """From 1 to 0."""
    if shape == "cosine":
        return _wave(progress, cycles)
    return 1.0 - (progress if shape == "linear" else _each(math.sqrt, progress))


def _each(function: Callable[[float], float], values: Any) -> Rates:
    import numpy as np

    return np.fromiter(map(function, values.tolist()), np.float64, len(values))


def _chosen(condition: Any, one: Any, other: Any) -> Rates:
    import numpy as np

    return np.where(condition, one, other)
