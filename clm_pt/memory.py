"""Keeps the memory of a step for the next one, where the C library would give it back and take it again."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Of glibc's mallopt: how much unused memory at its end the heap may have, and how many blocks may be outside of it."""

USUAL = {TRIM_THRESHOLD: 128 * 1024, MMAP_MAX: 65536}
"""What they are by glibc's manual, mallopt(3)."""

SET_BY_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def peak_of_accelerator() -> int | None:
    """The most of its memory that tensors of this process have had at once, in bytes; None where there is none."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device is None:
        return None
    found: int | None = getattr(torch.get_device_module(device), "max_memory_allocated", lambda: None)()
    return found


@contextmanager
def kept_memory(wanted: bool = True) -> Iterator[None]:
    """Within it, what is freed stays with the process; after it, it goes back to the system.

    Otherwise a large tensor is a mapping of its own, each page of which is made and zeroed at its first use: some
    350,000 in a step of DistilGPT2. Nothing is done where there is another C library, or a user has set these.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not wanted or not hasattr(library, "mallopt") or any(name in os.environ for name in SET_BY_USER):
        yield
        return
    assert library is not None
    library.mallopt(TRIM_THRESHOLD, -1)
    library.mallopt(MMAP_MAX, 0)
    try:
        yield
    finally:
        for name, value in USUAL.items():
            library.mallopt(name, value)
        library.malloc_trim(0)
