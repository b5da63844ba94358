"""The devices that train together, and what their processes must have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clm_core.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class World:
    """The devices that train together, as one of their processes sees them. Each device takes its share of a step."""

    rank: int = 0
    """The number of this process's first device, from 0."""
    size: int = 1
    """The devices of all processes."""
    local: int = 1
    """The devices of this process."""
    attempt: int = 0
    """How often a launcher has started the processes again, after one of them had failed."""

    @property
    def leads(self) -> bool:
        """Whether this process writes, reports and prints."""
        return self.rank == 0

    @property
    def is_one_process(self) -> bool:
        """Whether this process has all devices."""
        return self.local == self.size

    def of(self, batch_size: int, start: int) -> slice:
        """The rows of this process, of those from `start` on of which each device takes `batch_size`."""
        first = start + self.rank * batch_size
        return slice(first, first + self.local * batch_size)


ALONE = World()
"""One device, which does everything."""


def check_same(identities: Sequence[Mapping[str, str]]) -> None:
    """Make sure that all processes do the same; `identities` has the `identity()` of the job of each.

    Raises:
        OptionError: one has other options, or other data, than the first; all processes raise the same.
    """
    first = identities[0]
    for number, other in enumerate(identities):
        # What one clm has and another has not follows from their versions.
        for name in sorted(first.keys() | other.keys(), key=lambda name: (not name.startswith("version"), name)):
            if first.get(name) != other.get(name):
                here, there = (each.get(name, "nothing") for each in (other, first))
                raise OptionError(
                    f"process {number} differs from process 0 in {name}, {here} in place of {there}: start all "
                    "processes with the same options, on the same data and the same model, by the same clm"
                )
