"""The contract, for TensorFlow."""

import pytest

from clm_core.testing import BackendContract
from clm_tf.backend import TensorFlowBackend

pytest.importorskip("tf_keras")


class TestTensorFlowBackend(BackendContract):
    backend = TensorFlowBackend()
