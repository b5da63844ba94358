"""What a backend reports while it trains or scores, and the score itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Score:
    """The score of a model on some blocks, as sums, so that scores of batches add up to the score of a split."""

    loss_sum: float
    """Negative log likelihood of the predicted tokens, in nats, summed."""
    correct: int
    """Predicted tokens that the model ranked first."""
    tokens: int
    """Predicted tokens that count: all block_size - 1 of each block, unless the blocks have a mask."""

    def __add__(self, other: Score) -> Score:
        sums = (self.loss_sum + other.loss_sum, self.correct + other.correct, self.tokens + other.tokens)
        return Score(loss_sum=sums[0], correct=sums[1], tokens=sums[2])

    @property
    def loss(self) -> float:
        """Mean negative log likelihood of a token, in nats."""
        return self.loss_sum / self.tokens


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """A training step finished; two are equal if what they computed is, however the machine came to it."""

    step: int
    loss: float
    """Mean over the predicted tokens of this step's blocks that count, in nats, before the weights are updated."""
    grad_norm: float | None = None
    """Global norm of the gradient before clipping, where the backend has gradients."""
    auxiliary_loss: float | None = None
    """What the model adds to `loss` in training, such as for the balance of its experts, times its coefficient."""
    peak_memory_bytes: int | None = field(default=None, compare=False)
    """The most memory of an accelerator that the process has had in use; None where there is none."""
    is_late: bool = field(default=False, compare=False)
    """Whether the next step was begun before this one was known, so that a training does not stop after this one."""


@dataclass(frozen=True, kw_only=True)
class BatchScored:
    """An evaluation batch of this many blocks was scored."""

    blocks: int


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The validation split was scored, at a step where `schedule.evaluates_at(step)`; step 0 is before training."""

    step: int
    score: Score


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A checkpoint is complete on disk."""

    step: int
    path: Path


Event = StepDone | BatchScored | Evaluated | Saved
Report = Callable[[Event], None]
