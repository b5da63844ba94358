"""The loop of an evaluation: batch by batch, each reported, the scores summed."""

from collections.abc import Callable

from clm_core.backend import BatchScored, Blocks, Report, Score

NOTHING = Score(loss_sum=0.0, correct=0, tokens=0)


def score_in_batches(blocks: Blocks, batch_size: int, report: Report, score_batch: Callable[[Blocks], Score]) -> Score:
    """The score of all blocks, in their order: the sum of what `score_batch` gives for up to `batch_size` of them."""
    total = NOTHING
    for start in range(0, len(blocks), batch_size):
        batch = blocks[start : start + batch_size]
        total += score_batch(batch)
        report(BatchScored(blocks=len(batch)))
    return total
