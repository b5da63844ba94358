"""How fast a training is between two lines of its history."""

from collections.abc import Callable
from typing import Any

from clm_core.runs.utilization import Utilization
from clm_core.schedule import Schedule, TokenCount


class Speed:
    """Counts what was trained since the last line, and the seconds of it."""

    def __init__(
        self,
        schedule: Schedule,
        predicted: int,
        of_blocks: Any,
        start_step: int,
        utilization: Callable[[], Utilization | None] = lambda: None,
    ) -> None:
        """`predicted` and `of_blocks` are those of a `TokenCount`; `utilization` is asked for once steps are made."""
        self.tokens, self._blocks = TokenCount(schedule, predicted, of_blocks), schedule.blocks_until
        self._utilization = utilization
        self._step, self._seconds = start_step, 0.0

    def measure_from(self, step: int, seconds: float) -> None:
        """The next figures are those of the steps after this one, which ended after `seconds` of training."""
        self._step, self._seconds = step, seconds

    def until(self, step: int, seconds: float) -> dict[str, Any]:
        """For the history: the tokens so far, those of a second, and the utilization where it is known."""
        tokens, passed = self.tokens.until(step), max(seconds - self._seconds, 1e-9)
        rate = (tokens - self.tokens.until(self._step)) / passed
        blocks = self._blocks(step) - self._blocks(self._step)
        self.measure_from(step, seconds)
        found = {"tokens": tokens, "tokens_per_second": round(rate, 1)}
        known = self._utilization()
        return found | ({"mfu": round(known.at(blocks, passed), 4)} if known else {})
