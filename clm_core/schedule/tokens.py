"""How many tokens the first steps of a training are trained on: all, or those that count; and the steps of a budget."""

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from clm_core.config import TrainConfig
from clm_core.errors import OptionError

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TokenCount:
    """The tokens of a schedule's steps."""

    schedule: Any
    """A `Schedule`, of which it matters how its epochs are cut into steps, and not how many steps it has."""
    predicted: int
    """The tokens after the first of a block."""
    of_blocks: Numbers | None = None
    """How many of them count in each block, of shape (blocks,); None if all do."""
    _of_epochs: list[int] = field(default_factory=lambda: [0], init=False)
    """The tokens of 0, 1, 2 ... epochs, as far as they were asked for: to add them up each time takes ever longer."""
    _of_steps: dict[int, Numbers] = field(default_factory=dict, init=False)
    """By the epoch that was asked for last, its tokens until the end of each of its steps."""

    def until(self, step: int) -> int:
        """The tokens of the first `step` steps."""
        schedule = self.schedule
        if self.of_blocks is None:
            return int(schedule.blocks_until(step)) * self.predicted
        epochs, rest = divmod(step, int(schedule.steps_per_epoch))
        if schedule.drop_last:  # Of each epoch, other blocks.
            for epoch in range(len(self._of_epochs) - 1, epochs):
                self._of_epochs.append(self._of_epochs[-1] + int(self._in_steps(epoch, self.of_blocks)[-1]))
            whole = self._of_epochs[epochs]
        else:
            whole = epochs * int(self.of_blocks.sum())
        return whole + (int(self._in_steps(epochs, self.of_blocks)[rest - 1]) if rest else 0)

    def steps_within(self, tokens: int) -> int:
        """The most steps that are trained on no more than `tokens` tokens."""
        in_epoch, epochs = int(self.schedule.steps_per_epoch), 1
        while self.until(epochs * in_epoch) <= tokens:  # Epochs that drop blocks may have fewer tokens than the first.
            epochs *= 2
        whole = bisect_right(range(epochs + 1), tokens, key=lambda epoch: self.until(epoch * in_epoch)) - 1
        return (
            bisect_right(range(whole * in_epoch, (whole + 1) * in_epoch), tokens, key=self.until) - 1 + whole * in_epoch
        )

    def _in_steps(self, epoch: int, of_blocks: Numbers) -> Numbers:
        if (found := self._of_steps.get(epoch)) is None:
            rows = self.schedule.rows_of_epoch(epoch)
            starts = np.arange(0, len(rows), self.schedule.step_blocks)
            found = np.cumsum(np.add.reduceat(of_blocks[rows], starts))
            self._of_steps.clear()
            self._of_steps[epoch] = found
        return found


def total_steps(config: TrainConfig, endless: Any, of_blocks: Numbers | None) -> int:
    """The steps of a training that continues like this `Schedule`, which does not say how many it has.

    `of_blocks`: as `TokenCount`.

    Raises:
        OptionError: the budget of tokens is less than one step has, or there is another limit beside it.
    """
    if (tokens := config.max_trained_tokens) is None:
        by_epochs = math.ceil(config.num_train_epochs * endless.steps_per_epoch)
        return config.max_steps if config.max_steps > 0 else by_epochs
    if config.max_steps > 0:
        raise OptionError("max_trained_tokens and max_steps cannot be combined: give one of them")
    count = TokenCount(endless, config.block_size - 1, of_blocks)
    if steps := count.steps_within(tokens):
        return steps
    which = "of one step" if of_blocks is None else "that count in the first step"
    raise OptionError(
        f"max_trained_tokens {tokens} is less than the {count.until(1)} {which}: give at least as many, or take "
        "smaller steps"
    )
