"""What is wrong with a model is said in the same words by all backends."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from clm_core.errors import ModelError
from clm_core.testing.tiny import tiny_gpt2, tiny_model
from clm_pt import modeling as pytorch
from clm_tf import modeling as tensorflow
from clm_tf.keras3 import modeling as keras

NAME = "transformer.wpe.weight"

CHANGES = {
    "lacks": lambda tensors: tensors.pop(NAME),
    "another shape": lambda tensors: tensors.update({NAME: np.zeros((8, 16), np.float32)}),
    "quantized": lambda tensors: tensors.update({NAME: tensors[NAME].astype(np.int8)}),
    "unused": lambda tensors: tensors.update({"transformer.h.0.adapter.weight": np.ones(2, np.float32)}),
}


def words(load, model):
    with pytest.raises(ModelError) as caught:
        load(model)
    return str(caught.value)


@pytest.fixture(scope="module")
def tensors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    pytorch.save(pytorch.load(tiny_model(None)), folder)
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("fault", CHANGES)
def test_weights_that_do_not_fit(tensors, fault, tmp_path):
    changed = dict(tensors)
    CHANGES[fault](changed)
    save_file(changed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model = tiny_model(str(tmp_path))
    assert words(pytorch.load, model) == words(tensorflow.load, model) == words(keras.load, model)


@pytest.mark.parametrize(
    "file", ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "config.json"]
)
def test_weights_that_cannot_be_read(file, tmp_path):
    (tmp_path / file).write_bytes(b"{}")
    model = tiny_model(str(tmp_path))
    assert words(pytorch.load, model) == words(tensorflow.load, model) == words(keras.load, model)


@pytest.mark.parametrize("changes", [{"n_head": 3}, {"activation_function": "nonsense"}])
def test_a_configuration_that_cannot_be_built(changes):
    model = replace(tiny_model(None), architecture=tiny_gpt2(**changes))
    beginning = "transformers cannot build a gpt2 that predicts tokens: "
    assert words(pytorch.load, model).startswith(beginning)
    assert words(tensorflow.load, model).startswith(beginning)
