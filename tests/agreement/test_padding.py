"""A padding token in the text is trained in both frameworks as PyTorch trains it, with its `padding_idx`."""

import numpy as np
import pytest
import tensorflow as tf
from small_models import KINDS, new_model

from clm_core.comparison.compare import without_dropout
from clm_core.testing import losses, run
from clm_core.testing.tiny import training_blocks
from clm_pt import modeling as pytorch
from clm_pt.backend import PyTorchBackend
from clm_pt.datasets import collate
from clm_pt.scoring import token_loss
from clm_tf import modeling as tensorflow
from clm_tf import weights
from clm_tf.backend import TensorFlowBackend

PAD = 5
IDS = np.array([[PAD, 7, 9, PAD, PAD, 3], [2, 1, PAD, 8, 4, 6]])


def padded(kind, **changes):
    """A tiny model that takes a token of the text for padding."""
    model = new_model(kind)
    without_dropout(model.architecture)
    name = "pad_index" if kind == "xlm" else "pad_token_id"
    model.architecture.update({name: PAD, **changes})
    return model


def by_pytorch(model):
    loaded, batch = pytorch.load(model), collate(IDS)
    labels = batch.pop("labels")
    token_loss(loaded(**batch), labels).backward()
    return {name: weight.grad.numpy() for name, weight in loaded.named_parameters() if weight.grad is not None}


def by_tensorflow(model):
    loaded = tensorflow.load(model)
    with tf.GradientTape() as tape:
        loss = loaded(IDS, labels=IDS, training=True, return_dict=True).loss
    gradients = tape.gradient(loss, loaded.trainable_variables, unconnected_gradients="zero")
    found = {var.ref(): tf.convert_to_tensor(it) for var, it in zip(loaded.trainable_variables, gradients, strict=True)}
    return weights.exported_slots(loaded, lambda variable: found[variable.ref()])


@pytest.mark.parametrize(
    ("kind", "changes"),
    [*((kind, {}) for kind in KINDS), ("xglm", {"tie_word_embeddings": False})],
    ids=[*KINDS, "xglm, untied"],
)
def test_every_weight_has_the_gradient_that_it_has_in_pytorch(kind, changes):
    expected, found = by_pytorch(padded(kind, **changes)), by_tensorflow(padded(kind, **changes))
    largest = max(abs(array).max() for array in expected.values())
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-6 * largest, err_msg=name)


def test_in_fit_the_losses_stay_those_of_pytorch(tmp_path):
    assert (training_blocks() == PAD).any(axis=1).mean() > 0.2
    expected, found = (
        losses(run(backend, tmp_path / backend.name, model=padded("roberta"), max_steps=5))
        for backend in (PyTorchBackend(), TensorFlowBackend())
    )
    assert found == pytest.approx(expected, rel=2e-6)
