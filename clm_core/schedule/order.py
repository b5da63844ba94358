"""The order of the blocks in an epoch: sorted from random numbers or, of very many, computed where it is needed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
"""Numbers of blocks."""

Keys = npt.NDArray[np.uint64]

IN_MEMORY = 2**26
"""The most blocks whose order is kept in memory, where sorting takes 20 bytes for each."""

FEISTEL = "feistel"
"""The name, in checkpoints, of the order of more blocks than that."""

ROUNDS = 6


def epoch_order(blocks: int, *, seed: int, epoch: int) -> Rows:
    """The order of the blocks in an epoch: a permutation of `range(blocks)`, int64, that depends on nothing else.

    Sorting the raw output of a bit generator, because NumPy keeps that stream stable between
    versions and makes no such promise for `permutation` (NEP 19). Of more than 2**26 blocks, it is `Feistel`'s.
    """
    if blocks > IN_MEMORY:
        return Feistel.of(blocks, seed=seed, epoch=epoch).rows_at(np.arange(blocks))
    bits = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(blocks)
    return np.argsort(bits, kind="stable")


def rows_in(blocks: int, *, seed: int, epoch: int) -> Callable[[int, int], Rows]:
    """A function that gives the part of `epoch_order` from one position to another, without the second."""
    if blocks > IN_MEMORY:
        drawn = Feistel.of(blocks, seed=seed, epoch=epoch)
        return lambda start, stop: drawn.rows_at(np.arange(start, stop))
    order = _sorted(blocks, seed, epoch)
    return lambda start, stop: order[start:stop]


@dataclass(frozen=True)
class Feistel:
    """A permutation of `range(blocks)` that takes no memory: any part of it is computed as fast as any other.

    The two halves of a position's bits are mixed in turn, each with a number drawn from the other: a Feistel network,
    which is a permutation whatever the numbers (Luby and Rackoff, "How to construct pseudorandom permutations", 1988).
    The numbers are from the last steps of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators", 2014). The bits have numbers of up to twice as many blocks: from those beyond, it goes on to the next
    (cycle walking: Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
    """

    blocks: int
    keys: tuple[int, ...]
    """Of the rounds: 64 bits each."""

    @classmethod
    def of(cls, blocks: int, *, seed: int, epoch: int) -> "Feistel":
        """The permutation of an epoch."""
        keys = np.random.SeedSequence([seed, epoch]).generate_state(ROUNDS, np.uint64)
        return cls(blocks, tuple(keys.tolist()))

    def rows_at(self, positions: Rows) -> Rows:
        """The blocks at these positions of the order, from 0: int64, of the same shape."""
        rows = self._mixed(positions.astype(np.uint64))
        while (beyond := np.flatnonzero(rows >= self.blocks)).size:
            rows[beyond] = self._mixed(rows[beyond])
        return rows.astype(np.int64)

    def _mixed(self, numbers: Keys) -> Keys:
        bits = max(2, (self.blocks - 1).bit_length())
        width = np.uint64(bits // 2)
        to_low, to_high = np.uint64(2 ** (bits // 2) - 1), np.uint64(2 ** (bits - bits // 2) - 1)
        high, low = numbers >> width, numbers & to_low
        for one, other in zip(self.keys[::2], self.keys[1::2], strict=True):
            high = high ^ (_drawn(low, one) & to_high)
            low = low ^ (_drawn(high, other) & to_low)
        return (high << width) | low


@lru_cache(maxsize=1)
def _sorted(blocks: int, seed: int, epoch: int) -> Rows:
    """The order of the current epoch: one for all devices of a process, and so not to be written to."""
    order = epoch_order(blocks, seed=seed, epoch=epoch)
    order.flags.writeable = False
    return order


def _drawn(numbers: Keys, key: int) -> Keys:
    """A number of 64 bits for each, by the key: what SplitMix64 makes of its state; beyond 64 bits is cut off."""
    mixed = numbers * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
