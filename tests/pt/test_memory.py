"""Memory that is freed in a step is there for the next one, and goes back to the system after the training."""

import ctypes
import resource
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from clm_pt.memory import SET_BY_USER, kept_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is glibc's memory")


@pytest.fixture(autouse=True)
def nothing_is_free():
    ctypes.CDLL(None).malloc_trim(0)


def pages_of_a_second_tensor():
    """The pages that the system makes for 64 MB, of which somewhat more were freed just before."""
    torch.ones((1 << 24) + 4096)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_freed_memory_is_used_again():
    with kept_memory():
        assert pages_of_a_second_tensor() < 1_000


def test_without_it_the_system_makes_it_anew():
    with kept_memory(False):
        assert pages_of_a_second_tensor() > 10_000


def test_it_goes_back_at_the_end():
    before = resident()
    with kept_memory():
        torch.ones(1 << 26)
        within = resident()
    assert within - before > 200 << 20
    assert resident() - before < 50 << 20


@pytest.mark.parametrize("name", SET_BY_USER)
def test_what_a_user_has_set_stays(monkeypatch, name):
    asked = Mock()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: asked)
    monkeypatch.setenv(name, "1")
    with kept_memory():
        asked.mallopt.assert_not_called()
