"""What a TensorFlow class writes, whichever it is, gives the same logits when it is read, on every backend."""

import numpy as np
import pytest
from frameworks import installed
from probe import new_model, written

from clm_tf import modeling

MODEL_TYPES = [
    *("bert", "camembert", "ctrl", "gpt2", "gptj", "mistral", "openai-gpt", "opt", "rembert", "roberta"),
    *("roberta-prelayernorm", "roformer", "xglm", "xlm", "xlm-roberta", "xlnet"),
]
"""All that transformers has a TensorFlow class for, but transfo-xl, whose loss is not that of the next token."""
IDS = np.random.default_rng(0).integers(0, 64, (3, 16))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_what_a_tensorflow_class_writes_gives_the_same_logits_everywhere(model_type, tmp_path):
    model = modeling.load(new_model(model_type, tmp_path))
    random = np.random.default_rng(0)
    model.set_weights([array + random.normal(0, 0.1, array.shape) for array in model.get_weights()])
    (tmp_path / "model").mkdir()
    modeling.save(model, tmp_path / "model")
    expected = model(IDS, training=False, return_dict=True).logits.numpy()
    for one in (each for each in installed().values() if model_type in each.model_types):
        np.testing.assert_allclose(one.load(written(tmp_path))(IDS), expected, rtol=0, atol=1e-5)
