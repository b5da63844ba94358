"""The fastest matrix products in float32 of this CPU, found by trying: exact ones, and much faster than the usual."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

USUAL, BY_ONEDNN = "float32 as PyTorch is set", "float32 by oneDNN"

SIZE, ROUNDS = 512, 15
"""The rows and columns of the products that are tried, and how often each is."""

EXACT = 1e-6
"""The error of a product in float32, relative to the result in float64, is at most this; in bfloat16 it is 2e-3."""

FASTER = 1.3
"""How much faster others must be to be taken: less might be noise, and the same training would compute otherwise."""


@contextmanager
def fastest_products(before: str | None = None) -> Iterator[str]:
    """Compute in it with the fastest exact products; it gives their name. What PyTorch was set to comes back.

    `before` is the name it gave when a training began that resumes now: where these are exact here, they are taken,
    however fast. So what disturbs a trial does not change the numbers of a training on the way.

    "medium" lets PyTorch hand products in float32 to oneDNN, which computes them as it likes: on a CPU with AVX512 as
    exactly as any, on one with AMX, or on ARM, in bfloat16. PyTorch is left as it is where a user has set it, and where
    there is an accelerator.
    """
    if torch.accelerator.is_available() or not _is_untouched() or not _takes_others(before):
        yield "TF32 as PyTorch is set" if torch.cuda.is_available() and not _is_untouched() else USUAL
        return
    torch.set_float32_matmul_precision("medium")
    try:
        yield BY_ONEDNN
    finally:
        torch.set_float32_matmul_precision("highest")


def is_better(usual: float, other: float, error: float) -> bool:
    """Whether to compute otherwise than usual, by the seconds of each, and the relative error of the other."""
    return error <= EXACT and other * FASTER <= usual


def _takes_others(before: str | None) -> bool:
    if before is None:
        return is_better(*_seconds(), _error())
    return before == BY_ONEDNN and _error() <= EXACT


def _is_untouched() -> bool:
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # It was set by another interface, part by part.
        return False


@functools.cache
def _seconds() -> tuple[float, float]:
    """The seconds of a product as usual and by oneDNN, in turn, so that both meet the same disturbances."""
    one, other = _factors()
    usual, by_onednn = [], []
    with _one_thread():
        for _ in range(ROUNDS):
            torch.set_float32_matmul_precision("highest")
            usual.append(_seconds_of(one, other))
            torch.set_float32_matmul_precision("medium")
            by_onednn.append(_seconds_of(one, other))
    return statistics.median(usual), statistics.median(by_onednn)


@functools.cache
def _error() -> float:
    """The largest relative error of a product by oneDNN, of factors that lie in memory by rows and by columns."""
    one, other = _factors()
    exact = one.double() @ other.double()
    layouts = ((one, other), (one.T.contiguous().T, other), (one, other.T.contiguous().T))
    with _one_thread():
        torch.set_float32_matmul_precision("medium")
        return max(_error_of(first @ second, exact) for first, second in layouts)


def _factors() -> torch.Tensor:
    return torch.rand(2, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) - 0.5


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in one thread, whose time is its own, whatever else the machine does; PyTorch is left as it was."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.set_num_threads(threads)


def _seconds_of(one: torch.Tensor, other: torch.Tensor) -> float:
    started = time.thread_time()
    one @ other
    return time.thread_time() - started


def _error_of(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())
