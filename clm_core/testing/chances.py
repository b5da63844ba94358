"""A model with the same probabilities after any token, so that its samples can be counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clm_core.backend import Model
from clm_core.testing.tiny import VOCABULARY, blank_weights, tiny_gpt2, write_model

DRAWS = 64

PEAKED, EVEN = "peaked", "even"

FIRST_OF_EQUAL, LIKELIER = 4, 5
"""Of a model whose weights are close: the likelier token, and the first one of those that bfloat16 makes equal."""

Chances = npt.NDArray[np.float64]

DRAWN: dict[str, tuple[str, dict[str, Any], float, int]] = {
    "the defaults": (EVEN, {}, 1.0, 50),
    "top_k": (PEAKED, {"top_k": 3}, 1.0, 3),
    "top_p": (PEAKED, {"top_k": 0, "top_p": 0.7}, 1.0, 3),
    "temperature": (PEAKED, {"top_k": 0, "temperature": 0.25}, 4.0, VOCABULARY),
    # As transformers does it: temperature, then top_k, then top_p. The other way round, two would be left.
    "all three": (PEAKED, {"top_k": 4, "top_p": 0.6, "temperature": 2.0}, 0.5, 3),
}
"""Which chances, with which options; the power that they are then raised to, and how many tokens may be drawn."""


def chances(kind: str) -> Chances:
    """The chance of each token: six that have nearly all, or all nearly the same."""
    found = np.exp(-0.02 * np.arange(VOCABULARY)) if kind == EVEN else np.full(VOCABULARY, 1e-4)
    if kind == PEAKED:
        found[[5, 9, 11, 20, 33, 40]] = [0.35, 0.25, 0.16, 0.12, 0.08, 0.04]
    shares: Chances = found / found.sum()
    return shares


def write(folder: Path, kind: str) -> Model:
    """Write the model."""
    architecture = tiny_gpt2(n_positions=2 * DRAWS)
    weights = blank_weights(architecture)
    # The layer norm of a constant row is 0, however large the row, so that its bias alone makes the logits.
    weights["transformer.wte.weight"][:] = np.log(chances(kind))[:, None] / architecture.n_embd
    weights["transformer.ln_f.bias"][:] = 1.0
    return write_model(folder, architecture, weights)


def write_close(folder: Path) -> Model:
    """Write a model with two likely tokens, whose weights differ by less than bfloat16 can tell."""
    architecture = tiny_gpt2()
    weights = blank_weights(architecture)
    weights["transformer.wte.weight"][[FIRST_OF_EQUAL, LIKELIER]] = [[1.0], [1.001]]
    weights["transformer.ln_f.bias"][:] = 1.0
    return write_model(folder, architecture, weights)


def faults(ids: list[int], kind: str, power: float, kept: int) -> list[str]:
    """What was drawn too often or too rarely for chance: tokens that cannot be drawn, and counts."""
    likeliest = np.argsort(-chances(kind))[:kept]
    expected = chances(kind)[likeliest] ** power
    expected *= len(ids) / expected.sum()
    counts = np.bincount(ids, minlength=VOCABULARY)
    allowed = 3.5 * np.sqrt(expected * (1 - expected / len(ids))) + 1.5
    found = [f"token {token} is not among the {kept} most likely" for token in set(ids) - set(likeliest.tolist())]
    return found + [
        f"token {token} was drawn {counts[token]} times of {len(ids)}, expected {mean:.1f} and at most {most:.1f} off"
        for token, mean, most in zip(likeliest.tolist(), expected, allowed, strict=True)
        if abs(counts[token] - mean) > most
    ]
