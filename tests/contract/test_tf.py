"""The contract, for TensorFlow."""

import pytest

from clm_core.testing import BackendContract
from clm_tf.backend import TensorFlowBackend

pytest.importorskip("tensorflow")


class TestTensorFlowBackend(BackendContract):
    backend = TensorFlowBackend()
