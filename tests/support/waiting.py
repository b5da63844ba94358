"""Waits for what another thread or process does, with an end to the patience."""

import time
from collections.abc import Callable

LONGEST = 60.0
"""Seconds after which nothing comes any more, on a machine that does much else too."""


def wait_until(condition: Callable[[], object], seconds: float = LONGEST, *, why: Callable[[], object] = str) -> None:
    """Return when the condition holds.

    Raises:
        AssertionError: it did not within `seconds`; with what `why` returns.
    """
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited {seconds} s in vain: {why()}"
        time.sleep(0.01)
