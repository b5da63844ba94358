"""Rotary embeddings: the frequencies that a configuration asks for, computed as transformers computes them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from clm_core.models.series import FULL, ROPES, SLIDING
from clm_core.models.series import Rope as Words

Array = npt.NDArray[np.float32]
Parameters = Mapping[str, Any]
Refuse = Callable[[str, Any], Exception]
"""Makes the error about a field and its value."""


@dataclass(frozen=True)
class Rope:
    """How queries and keys rotate with their positions: pair i by `position * frequencies[i]`.

    The tuples have a number for each pair of the rotated dimensions.
    """

    frequencies: tuple[float, ...]
    scale: float = 1.0
    """The factor on sine and cosine."""
    length: int = 0
    """The text length above which others apply, if there are others."""
    beyond: tuple[float, ...] | None = None
    """The frequencies of a longer text."""
    stretch: tuple[float, float] | None = None
    """The theta and the factor from which those of a longer text are computed, by its length ("dynamic")."""

    @property
    def size(self) -> int:
        """How many dimensions of a head rotate."""
        return 2 * len(self.frequencies)


def read_parameters(fields: Mapping[str, Any], layer_type: str | None) -> dict[str, Any]:
    """What a configuration says of the layers of this type, in the words of transformers 5's `rope_parameters`.

    The fields may be those of transformers 4.57, which has a field for each parameter.
    """
    first = fields.get("original_max_position_embeddings")
    if (found := fields.get("rope_parameters")) is None:
        return _of_separate_fields(fields, layer_type, first)
    fields.get("partial_rotary_factor")  # As the lengths before, it is in the parameters too.
    by_type = all(isinstance(value, dict | None) for value in found.values())
    return {"rope_type": "default", **((found.get(layer_type) if by_type else found) or {})}


def rope(parameters: Parameters, size: int, positions: int, refuse: Refuse) -> Rope:
    """The frequencies for heads of `size`, in a model of `positions` positions.

    Raises:
        Exception: what `refuse` returns, for a type or a parameter that is not known here.
    """
    kind = parameters.get("rope_type", "default")
    if kind not in KINDS:
        raise refuse("rope_type", kind)
    known, function = KINDS[kind]
    for name in sorted(parameters.keys() - {"rope_type", "type", "rope_theta", "partial_rotary_factor", *known}):
        if parameters[name] is not None:
            raise refuse(f"rope_parameters.{name}", parameters[name])
    _check_numbers(parameters, refuse)
    part = parameters.get("partial_rotary_factor") or 1.0
    rotated = int(size * part)
    if rotated % 2 or not rotated:
        raise refuse("partial_rotary_factor" if part != 1.0 else "head_dim", part if part != 1.0 else size)
    for name in LISTS:
        if name in parameters and len(parameters[name]) != rotated // 2:
            raise refuse(f"rope_parameters.{name}", parameters[name])
    plain = 1.0 / _powers(parameters["rope_theta"], rotated)
    return function(plain, {**parameters, "size": rotated, "positions": positions})


def _check_numbers(parameters: Parameters, refuse: Refuse) -> None:
    """Make sure that each parameter but the type is a number or a list of them, above 0 where something is divided."""
    for name in parameters.keys() - {"rope_type", "type"}:
        value = parameters[name]
        if value is None and name not in LISTS:
            continue
        numbers = value if name in LISTS and isinstance(value, list) else [value]
        least = 0 if name in DIVISORS else -math.inf
        if not all(isinstance(number, int | float) and number > least for number in numbers):
            raise refuse(name if name == "partial_rotary_factor" else f"rope_parameters.{name}", value)


def _of_separate_fields(fields: Mapping[str, Any], layer_type: str | None, first: Any) -> dict[str, Any]:
    words = ROPES.get(fields["model_type"], Words())
    slides = layer_type == SLIDING
    scaling = {} if slides and not words.sliding_scaled else dict(fields.get("rope_scaling") or {})
    scaling["rope_type"] = scaling.get("rope_type", scaling.pop("type", "default"))
    name = words.sliding_theta if slides and words.sliding_theta else words.theta
    found = {**scaling, "rope_theta": fields[name], "partial_rotary_factor": fields.get(words.partial)}
    if found["rope_type"] == "yarn":
        found["original_max_position_embeddings"] = (
            found.get("original_max_position_embeddings") or fields["max_position_embeddings"]
        )
    if found["rope_type"] == "longrope":
        found["original_max_position_embeddings"] = first or fields["max_position_embeddings"]
        if first:  # The factor follows from both lengths then, whatever `factor` says.
            found["factor"] = fields["max_position_embeddings"] / first
    return found


def _powers(theta: float, size: int) -> Array:
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    return np.power(np.float32(theta), exponents, dtype=np.float32)


def _default(plain: Array, parameters: Parameters) -> Rope:
    return Rope(_numbers(plain))


def _linear(plain: Array, parameters: Parameters) -> Rope:
    return Rope(_numbers(plain / np.float32(parameters["factor"])))


def _dynamic(plain: Array, parameters: Parameters) -> Rope:
    stretch = float(parameters["rope_theta"]), float(parameters["factor"])
    return Rope(_numbers(plain), length=parameters["positions"], stretch=stretch)


def _llama3(plain: Array, parameters: Parameters) -> Rope:
    """Slow pairs are stretched, fast ones are not, and those between in part (Llama 3.1)."""
    factor, low, high, first = (
        parameters[name]
        for name in ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    )
    lengths = 2 * math.pi / plain
    smooth = (first / lengths - low) / (high - low)
    between = (1 - smooth) * plain / factor + smooth * plain
    stretched = np.where(lengths > first / low, plain / factor, plain)
    return Rope(_numbers(np.where((lengths <= first / low) & (lengths >= first / high), between, stretched)))


def _yarn(plain: Array, parameters: Parameters) -> Rope:
    """Peng et al., "YaRN: Efficient Context Window Extension of Large Language Models" (2023)."""
    size, theta = parameters["size"], parameters["rope_theta"]
    first = parameters["original_max_position_embeddings"]
    factor = parameters.get("factor") or parameters["positions"] / first
    low, high = (
        size * math.log(first / (turns * 2 * math.pi)) / (2 * math.log(theta))
        for turns in (parameters.get("beta_fast") or 32, parameters.get("beta_slow") or 1)
    )
    if parameters.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    ramp = np.clip((np.arange(size // 2) - low) / ((high - low) or 0.001), 0, 1).astype(np.float32)
    return Rope(_numbers(plain / np.float32(factor) * ramp + plain * (1 - ramp)), scale=_yarn_scale(factor, parameters))


def _yarn_scale(factor: float, parameters: Parameters) -> float:
    if (given := parameters.get("attention_factor")) is not None:
        return float(given)
    one, other = parameters.get("mscale"), parameters.get("mscale_all_dim")
    if factor <= 1:
        return 1.0
    if one and other:
        return (0.1 * one * math.log(factor) + 1.0) / (0.1 * other * math.log(factor) + 1.0)
    return 0.1 * math.log(factor) + 1.0


def _longrope(plain: Array, parameters: Parameters) -> Rope:
    """Ding et al., "LongRoPE: Extending LLM Context Window Beyond 2 Million Tokens" (2024)."""
    first = parameters["original_max_position_embeddings"]
    factor = parameters.get("factor") or parameters["positions"] / first
    scale = parameters.get("attention_factor")
    if scale is None:
        scale = math.sqrt(1 + math.log(factor) / math.log(first)) if factor > 1 else 1.0
    short, long = (
        _numbers(plain / np.asarray(parameters[name], np.float32)) for name in ("short_factor", "long_factor")
    )
    return replace(Rope(short, scale=float(scale)), length=first, beyond=long)


def _numbers(frequencies: npt.NDArray[Any]) -> tuple[float, ...]:
    return tuple(map(float, frequencies.astype(np.float32)))


FIRST = "original_max_position_embeddings"
LISTS = ("short_factor", "long_factor")
DIVISORS = ("rope_theta", "factor", "low_freq_factor", "high_freq_factor", "partial_rotary_factor", FIRST, *LISTS)
"""Parameters that are above 0."""

KINDS: dict[str, tuple[set[str], Callable[[Array, Parameters], Rope]]] = {
    "default": (set(), _default),
    "linear": ({"factor"}, _linear),
    "dynamic": ({"factor", FIRST}, _dynamic),
    "llama3": ({"factor", FIRST, "low_freq_factor", "high_freq_factor"}, _llama3),
    "longrope": ({"factor", FIRST, "attention_factor", "short_factor", "long_factor"}, _longrope),
    "yarn": (
        {"factor", FIRST, "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"},
        _yarn,
    ),
}
"""By `rope_type`: the parameters that it takes, and the function that computes it."""

__all__ = ["FULL", "SLIDING", "Rope", "read_parameters", "rope"]
