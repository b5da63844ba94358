"""How many tokens the first steps of a training are trained on: all, or those that count."""

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from clm_core.config import TrainConfig
from clm_core.errors import OptionError
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
    _of_epochs: list[int] = field(default_factory=lambda: [0], init=False)
    """The tokens of so many epochs, as far as they were asked for: to add them up each time would take ever longer."""

    def until(self, step: int) -> int:
        """The tokens of the first `step` steps."""
        schedule = self.schedule
        if self.of_blocks is None:
            return schedule.blocks_until(step) * self.predicted
        epochs, rest = divmod(step, schedule.steps_per_epoch)
        if schedule.drop_last:  # Of each epoch, other blocks.
            for epoch in range(len(self._of_epochs) - 1, epochs):
                self._of_epochs.append(self._of_epochs[-1] + int(_in_steps(self, epoch)[-1]))
            whole = self._of_epochs[epochs]
        else:
            whole = epochs * int(self.of_blocks.sum())
        return whole + (int(_in_steps(self, epochs)[rest - 1]) if rest else 0)

    def steps_within(self, tokens: int) -> int:
        """The most steps that are trained on no more than so many tokens."""
        steps = self.schedule.steps_per_epoch
        while self.until(steps) <= tokens:  # Epochs that drop blocks may have fewer tokens than the first.
            steps *= 2
        return bisect_right(range(steps + 1), tokens, key=self.until) - 1


def schedule_on(config: TrainConfig, of_blocks: Numbers | None, **settings: Any) -> Schedule:
    """`Schedule.from_config` where only some tokens count: `max_trained_tokens` are those; `of_blocks` as `TokenCount`.

    Raises:
        ClmError: as `Schedule.from_config`.
    """
    if of_blocks is None or config.max_trained_tokens is None or config.max_steps > 0:
        return Schedule.from_config(config, **settings)
    one_step = replace(
        config,
        max_trained_tokens=None,
        max_steps=1,
        lr_scheduler_type="constant",
        lr_scheduler_kwargs=None,
        warmup_steps=0,
        warmup_ratio=0.0,
    )
    count = TokenCount(Schedule.from_config(one_step, **settings), config.block_size - 1, of_blocks)
    if steps := count.steps_within(config.max_trained_tokens):
        return Schedule.from_config(replace(config, max_trained_tokens=None, max_steps=steps), **settings)
    raise OptionError(
        f"max_trained_tokens {config.max_trained_tokens} is less than the {count.until(1)} that count in the first "
        "step: give as many, or take smaller steps"
    )


@lru_cache(maxsize=4096)
def _in_steps(count: TokenCount, epoch: int) -> Numbers:
    """The tokens of an epoch until the end of each of its steps."""
    assert count.of_blocks is not None
    rows = count.schedule.rows_of_epoch(epoch)
    starts = np.arange(0, len(rows), count.schedule.step_blocks)
    found: Numbers = np.cumsum(np.add.reduceat(count.of_blocks[rows], starts))
    return found
