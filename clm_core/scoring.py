"""The loop of an evaluation: batch by batch, each reported, the scores summed; and the tokens scored at a time."""

from collections.abc import Callable

from clm_core.backend import ALONE, BatchScored, Blocks, Report, Score, World

NOTHING = Score(loss_sum=0.0, correct=0, tokens=0)

CHUNK_BYTES = 1 << 26
"""The float32 logits of a chunk have no more bytes, unless it has `LEAST_ROWS`."""

LEAST_ROWS, MOST_ROWS = 16, 256
"""How many tokens a chunk may have: a product of fewer is slow, and of more is no faster."""


def rows_of_chunk(vocabulary: int) -> int:
    """For how many tokens a backend computes logits at a time, in a training too."""
    return max(LEAST_ROWS, min(MOST_ROWS, CHUNK_BYTES // (4 * vocabulary)))


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
