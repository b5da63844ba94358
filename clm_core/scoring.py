"""The loop of an evaluation: batch by batch, each reported, the scores summed."""

from collections.abc import Callable

from clm_core.backend import ALONE, BatchScored, Blocks, Report, Score, World

NOTHING = Score(loss_sum=0.0, correct=0, tokens=0)


def score_in_batches(
    blocks: Blocks,
    batch_size: int,
    report: Report,
    score_batch: Callable[[Blocks], Score],
    *,
    world: World = ALONE,
    together: Callable[[], None] = lambda: None,
) -> Score:
    """The score of all blocks, in their order: the sum of what `score_batch` gives for up to `batch_size` of them.

    Where several devices score, each takes a batch in turn, and the sum is that of this process's; `score_batch` gets
    those of its devices at once, perhaps none. `together` is called before each report, in all processes as often.
    """
    total = NOTHING
    width = batch_size * world.size
    for start in range(0, len(blocks), width):
        total += score_batch(blocks[world.of(batch_size, start)])
        together()
        report(BatchScored(blocks=min(width, len(blocks) - start)))
    return total
