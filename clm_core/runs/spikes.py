"""Spikes of the loss: when a training diverges, although its loss is still a number."""

from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import Any

WINDOW = 50
"""Losses that the median is of."""


@dataclass
class Spikes:
    """Follows the losses of a training, and knows how many in a row were far above the running median.

    The median is of the last `WINDOW` losses before them, so that a long spike does not count as usual.
    """

    factor: float | None = None
    """How many times the median a loss must exceed; None if no loss is too high."""
    patience: int = 1
    """How many in a row make a spike."""
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    in_a_row: int = 0

    @property
    def median(self) -> float:
        """The median of the losses before the spike, of which there is at least one."""
        return median(self.losses)

    def add(self, loss: float) -> bool:
        """Take the loss of the next step, and return whether it completes a spike."""
        if self.factor is not None and self.losses and loss > self.factor * self.median:
            self.in_a_row += 1
        else:
            self.in_a_row = 0
            self.losses.append(loss)
        return self.in_a_row >= self.patience

    def to_keep(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a resumed training decides the same."""
        return {"losses": list(self.losses), "in_a_row": self.in_a_row}

    def restore(self, kept: Any) -> None:
        """Go on from what `to_keep` returned; from nothing, if an earlier clm kept nothing."""
        if kept:
            self.losses.extend(map(float, kept["losses"]))
            self.in_a_row = int(kept["in_a_row"])
