"""A model from scratch begins with the same weights in both frameworks."""

import numpy as np
import pytest
from safetensors.numpy import load_file
from small_models import KINDS, new_model

from clm_pt import modeling as pytorch
from clm_tf import modeling as tensorflow


@pytest.mark.parametrize("kind", KINDS)
def test_first_weights_are_the_same_bit_for_bit(kind, tmp_path):
    expected = pytorch.load(new_model(kind)).state_dict()
    tensorflow.save(tensorflow.load(new_model(kind)), tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    assert len(found) > 10
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
