"""A batch of a training has the loss and the gradients that Keras has of `NextToken`, without all logits at once."""

import numpy as np
import pytest

pytest.importorskip("keras")

import tensorflow as tf
from transformers import AutoConfig

from clm_core.backend import IGNORED, Model
from clm_tf import losses
from clm_tf.keras3 import NextToken, accumulation, load
from tests.keras3.plain_decoders import PLAIN

IDS = np.random.default_rng(0).integers(4, 128, (3, 16))
COUNTED = np.random.default_rng(1).random((3, 15)) < 0.5


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("kind", "changes"),
    [("gpt2", {}), ("gemma2", {}), ("qwen2_moe", {"output_router_logits": True})],
    ids=["tied", "soft cap", "mixture"],
)
def test_chunks_of_the_head_have_the_loss_and_the_gradients_of_the_whole(kind, changes, compiled, monkeypatch):
    monkeypatch.setattr(losses, "rows_of_chunk", lambda vocabulary: 16)
    architecture = AutoConfig.for_model(kind, **{**PLAIN[kind], **changes})
    model = load(Model(name_or_path=None, revision="main", architecture=architecture, seed=1))
    variables = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape() as tape:
        logits = model(IDS, training=True)
        expected = tf.add_n([NextToken()(IDS, logits, sample_weight=COUNTED.astype(np.float32)), *model.losses])
    whole = [*map(tf.convert_to_tensor, tape.gradient(expected, variables))]
    labels = np.where(np.pad(COUNTED, [(0, 0), (1, 0)]), IDS, IGNORED)
    model.batches.assign(0)
    of_batch = tf.function(lambda *given: accumulation._of_batch(model, *given), jit_compile=compiled)
    loss, found = of_batch(tf.constant(IDS), tf.constant(labels), tf.constant(float(COUNTED.size)))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    apart = tf.linalg.global_norm([one - other for one, other in zip(found, whole, strict=True)])
    assert apart < 1e-6 * tf.linalg.global_norm(whole)
