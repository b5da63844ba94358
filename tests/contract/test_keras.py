"""The contract, for Keras 3."""

import pytest

from clm_core.testing import BackendContract
from clm_tf.keras3.backend import KerasBackend

pytest.importorskip("tensorflow")


class TestKerasBackend(BackendContract):
    backend = KerasBackend()
