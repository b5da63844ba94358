"""Whatever happens to a run, the same command ends it as if nothing had: some cases of the sweep in fault_sweep.py."""

import importlib.util
import random

import pytest
from fault_sweep import ALL, NEEDS
from short_runs import laboratory

SAMPLES = {
    "bigram": ("kill", "half a write", "kill twice", "kill, overwriting", "SIGTERM", "damage, interrupted"),
    "pt": ("kill", "SIGTERM"),
    "tf": ("kill",),
    "keras": ("kill",),
}
"""One case of each of these kinds; the sweep has all cases of all kinds."""


@pytest.mark.parametrize("backend", SAMPLES)
def test_the_same_command_ends_a_run_as_if_nothing_had_happened(backend, tmp_path):
    if importlib.util.find_spec(NEEDS[backend]) is None:
        pytest.skip(f"backend {backend} is not installed")
    drawn = random.Random(backend)
    with laboratory(backend, tmp_path) as lab:
        sampled = [drawn.choice(list(ALL[kind](lab))) for kind in SAMPLES[backend]]
        found = {case.name: case.check() for case in sampled}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
