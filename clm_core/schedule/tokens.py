"""How many tokens the first steps of a training are trained on: all, or those that count."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from clm_core.schedule.schedule import Schedule

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TokenCount:
    """The tokens of a schedule's steps."""

    schedule: Schedule
    predicted: int
    """The tokens after the first of a block."""
    of_blocks: Numbers | None = None
    """How many of them count in each block, of shape (blocks,); None if all do."""

    def until(self, step: int) -> int:
        """The tokens of the first `step` steps."""
        schedule = self.schedule
        if self.of_blocks is None:
            return schedule.blocks_until(step) * self.predicted
        epochs, rest = divmod(step, schedule.steps_per_epoch)
        if schedule.drop_last:  # Of each epoch, other blocks.
            whole = sum(int(_in_steps(self, epoch)[-1]) for epoch in range(epochs))
        else:
            whole = epochs * int(self.of_blocks.sum())
        return whole + (int(_in_steps(self, epochs)[rest - 1]) if rest else 0)


@lru_cache(maxsize=4096)
def _in_steps(count: TokenCount, epoch: int) -> Numbers:
    """The tokens of an epoch until the end of each of its steps."""
    assert count.of_blocks is not None
    rows = count.schedule.rows_of_epoch(epoch)
    starts = np.arange(0, len(rows), count.schedule.step_blocks)
    found: Numbers = np.cumsum(np.add.reduceat(count.of_blocks[rows], starts))
    return found
