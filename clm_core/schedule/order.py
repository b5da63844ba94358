"""The order of the blocks in an epoch."""

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
"""Numbers of blocks."""


def epoch_order(blocks: int, *, seed: int, epoch: int) -> Rows:
    """The order of the blocks in an epoch: a permutation of `range(blocks)`, int64, that depends on nothing else.

    Sorting the raw output of a bit generator, because NumPy keeps that stream stable between
    versions and makes no such promise for `permutation` (NEP 19).
    """
    bits = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(blocks)
    return np.argsort(bits, kind="stable")
