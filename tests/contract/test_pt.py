"""The contract, for PyTorch."""

import pytest

from clm_core.testing import BackendContract
from clm_pt.backend import PyTorchBackend

pytest.importorskip("torch")


class TestPyTorchBackend(BackendContract):
    backend = PyTorchBackend()
