"""What holds for every test: several work at once where they are many, each with one thread."""

import os

import hypothesis
import pytest

# Read when a library is loaded, here and in the processes that tests start: what they compute is small, and threads
# that wait for each other on a busy machine take many times as long.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(name, "1")

# Tests state what a CPU computes, also on a machine with a GPU; `nox -s gpu` runs those that one passes as well.
if os.environ.get("CLM_TESTS_ON") != "gpu":
    os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "HIP_VISIBLE_DEVICES": "-1"}

# How long an example takes says nothing on a busy machine.
hypothesis.settings.register_profile("clm", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("clm")

MOST = 4
"""Processes; each takes up to 3 GB of memory where both frameworks are there."""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Spread whole folders over the processors with pytest-xdist, unless -n says otherwise, or it is not there.

    A file alone is done before the processes have started. In the options of pyproject.toml, -n would be unknown where
    pytest-xdist is not, or is switched off.
    """
    if getattr(config.option, "numprocesses", 0) is not None or "PYTEST_XDIST_WORKER" in os.environ:
        return
    if not all("::" in place or place.endswith(".py") for place in config.args):
        config.option.numprocesses, config.option.maxprocesses = "auto", MOST
        config.option.dist = "worksteal"  # It keeps the order, and so what a class or a file shares.
