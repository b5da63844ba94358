"""A model from scratch begins with the same weights on every backend."""

import numpy as np
import pytest
from safetensors.numpy import load_file
from small_models import KINDS, new_model

from clm_pt import modeling as pytorch
from clm_tf import modeling as tensorflow
from clm_tf.keras3 import modeling as keras

CASES = [(tensorflow, kind) for kind in KINDS] + [(keras, kind) for kind in ("gpt2", "gemma3_text", "cohere")]


@pytest.mark.parametrize(("modeling", "kind"), CASES)
def test_first_weights_are_the_same_bit_for_bit(modeling, kind, tmp_path):
    expected = pytorch.load(new_model(kind)).state_dict()
    modeling.save(modeling.load(new_model(kind)), tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    assert len(found) > 10
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
