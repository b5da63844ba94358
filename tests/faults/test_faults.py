"""Whatever happens to a run, the same command ends it as if nothing had: some cases of the sweep in fault_sweep.py."""

import random

import pytest
from fault_sweep import ALL, installed
from short_runs import laboratory, serving

SAMPLES = {
    "bigram": (
        *("kill", "half a write", "kill, resumed", "kill twice", "kill, overwriting", "SIGTERM"),
        *("ENOSPC", "EIO from then on", "damage, interrupted", "damage, finished"),
    ),
    "pt": ("kill", "SIGTERM"),
    "tf": ("kill",),
    "keras": ("kill",),
}
"""Of each of these kinds there is one case here; the sweep has all cases of all kinds."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(installed(), tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.mark.parametrize("backend", SAMPLES)
def test_the_same_command_ends_a_run_as_if_nothing_had_happened(backend, server, tmp_path):
    if backend not in installed():
        pytest.skip(f"backend {backend} is not installed")
    drawn, lab = random.Random(backend), laboratory(backend, tmp_path, server)
    cases = [drawn.choice(list(ALL[kind](lab))) for kind in SAMPLES[backend]]
    found = {case.name: case.check() for case in cases}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
