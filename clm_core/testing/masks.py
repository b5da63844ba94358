"""A model whose loss shows which of its dropout masks dropped something.

All that a layer adds to the residual stream is a constant, the same power of 2 for one mask alone, in a single
dimension; the token that follows is the likelier the larger this is. So the loss of a step of two blocks is one of a
few numbers, of which each is that of certain masks, where what is kept is divided by the probability to be kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np

from clm_core.backend import Backend, Evaluated, Model
from clm_core.testing.tiny import Weights, blank_weights, tiny_gpt2, write_model
from clm_core.testing.trace import losses, run

RATE, UNIT, STEPS, TARGET = 0.4, 0.15, 32, 1

Pair = tuple[int, int]

SITES: dict[str, tuple[str, ...]] = {
    "embd_pdrop": ("embeddings",),
    "attn_pdrop": tuple(f"layer {layer}, head {head}" for layer in (0, 1) for head in (0, 1)),
    "resid_pdrop": tuple(f"layer {layer}, {part}" for layer in (0, 1) for part in ("attention", "mlp")),
}
"""Where a mask of each kind of dropout is drawn; bit i of a combination says that the i-th has dropped nothing."""


@dataclass(frozen=True)
class Masks:
    """What the masks of a training did."""

    kind: str
    steps: list[Pair]
    """For the two blocks of each step, in either order, the combination of masks that dropped nothing that is seen."""

    def faults(self) -> list[str]:
        """What is wrong with them: drawn never, once for all steps, for both blocks, or for two sites together."""
        found = []
        names, drawn = SITES[self.kind], [kept for pair in self.steps for kept in pair]
        kept = sum(_bit(combination, bit) for combination in drawn for bit in range(len(names)))
        mean = (1 - RATE) * len(drawn) * len(names)
        if abs(kept - mean) > 3.5 * math.sqrt(RATE * mean):
            found.append(f"{kept} of {len(drawn) * len(names)} masks kept what they cover, expected about {mean:.0f}")
        if len(set(self.steps)) == 1:
            found.append("all steps have the same masks")
        for bit, name in enumerate(names):
            if len({_bit(kept, bit) for kept in drawn}) == 1:
                found.append(f"{name}: {'nothing' if _bit(drawn[0], bit) else 'all'} is dropped at every step")
            elif all(_bit(first, bit) == _bit(second, bit) for first, second in self.steps):
                found.append(f"{name}: all blocks of a step have the same mask")
        for one, other in combinations(range(len(names)), 2):
            if all(_bit(kept, one) == _bit(kept, other) for kept in drawn):
                found.append(f"{names[one]} and {names[other]} have the same mask")
        return found


def follow(backend: Backend, kind: str, folder: Path) -> Masks:
    """Train with one kind of dropout, hardly moving the weights, and find out which masks were drawn.

    The two blocks of a step are a batch; with one of the kinds, a batch each.

    Raises:
        AssertionError: a loss is none that masks make, or dropout acts in evaluation.
    """
    sites = SITES[kind]
    in_two_batches = kind == "embd_pdrop" and "gradient_accumulation_steps" not in backend.unsupported
    blocks = np.tile(np.array([[0, TARGET]], np.uint16), (2 * STEPS, 1))
    trace = run(
        backend,
        folder / "run",
        model=write(folder / "model", kind),
        blocks=(blocks, blocks[:2]),
        block_size=2,
        max_steps=STEPS,
        per_device_train_batch_size=1 if in_two_batches else 2,
        gradient_accumulation_steps=2 if in_two_batches else 1,
        learning_rate=1e-12,
        eval_strategy="steps",
        eval_steps=STEPS,
    )
    whole = loss(UNIT * (2 ** len(sites) - 1))
    for evaluated in trace.of(Evaluated):
        found = evaluated.score.loss
        assert abs(found - whole) < 1e-4, f"in evaluation, where nothing is dropped, {kind} makes {found} of {whole}"
    return Masks(kind, [_pair(found, len(sites), kind) for found in losses(trace)])


def write(folder: Path, kind: str) -> Model:
    """Write the model in which the masks of this kind are seen."""
    architecture = tiny_gpt2(**{kind: RATE})
    weights = blank_weights(architecture)
    weights["transformer.wte.weight"][TARGET, 0] = 2.0
    constant, stream = _constant(), weights["transformer.wpe.weight"][0]
    if kind == "embd_pdrop":
        stream[0] = UNIT
        weights["transformer.h.0.mlp.c_proj.bias"][:] = constant  # Not in the embeddings, where it would be dropped.
    else:
        stream[:] = constant
    for layer in (0, 1):
        _set_layer(weights, f"transformer.h.{layer}", kind, UNIT * 4.0**layer)
    return write_model(folder, architecture, weights)


def loss(added: float) -> float:
    """The loss of the one predicted token, where so much is added to the first dimension."""
    stream = _constant().astype(np.float64)
    stream[0] += added
    logit = 2 * (stream - stream.mean())[0] / np.sqrt(stream.var() + 1e-5)
    return float(np.log(63 + np.exp(logit)) - logit)


def _set_layer(weights: Weights, name: str, kind: str, unit: float) -> None:
    if kind == "resid_pdrop":
        weights[f"{name}.attn.c_proj.bias"][0] = unit
        weights[f"{name}.mlp.c_proj.bias"][0] = 2 * unit
    elif kind == "attn_pdrop":  # The first token sees itself alone, so that a head drops its value, or nothing.
        for head, value in ((0, unit), (8, 2 * unit)):
            weights[f"{name}.attn.c_attn.bias"][32 + head] = value
            weights[f"{name}.attn.c_proj.weight"][head, 0] = 1.0


def _constant() -> Any:
    """What the layer norm at the end has besides the dimension that counts, so that its size is seen."""
    return np.array([0.0] + [1.0, -1.0] * 7 + [0.0], np.float32)


def _bit(kept: int, index: int) -> int:
    return kept >> index & 1


def _pair(found: float, sites: int, kind: str) -> Pair:
    table = [loss(UNIT * kept / (1 - RATE)) for kept in range(2**sites)]
    pairs = list(combinations_with_replacement(range(2**sites), 2))
    means = np.array([(table[first] + table[second]) / 2 for first, second in pairs])
    nearest = int(np.abs(means - found).argmin())
    assert abs(means[nearest] - found) < 1e-4, (
        f"no masks of {kind} make a loss of {found}; the nearest, {means[nearest]}"
    )
    return pairs[nearest]
