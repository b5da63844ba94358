"""What a TensorFlow class writes gives the same logits when it is read, on every backend; its head works in chunks."""

import numpy as np
import pytest
import tensorflow as tf
from frameworks import installed
from probe import new_model, written

from clm_tf import losses, modeling
from clm_tf.accumulation import _of_batch
from clm_tf.head import head_behind
from clm_tf.projection import DENSE, adapt
from clm_tf.scoring import score
from clm_tf.tracing import traced

MODEL_TYPES = [
    *("bert", "camembert", "ctrl", "gpt2", "gptj", "mistral", "openai-gpt", "opt", "rembert", "roberta"),
    *("roberta-prelayernorm", "roformer", "xglm", "xlm", "xlm-roberta", "xlnet"),
]
"""All that transformers has a TensorFlow class for, but transfo-xl, whose loss is not that of the next token."""
IDS = np.random.default_rng(0).integers(0, 64, (3, 16))


@pytest.fixture(scope="module", params=MODEL_TYPES)
def model_type(request):
    return request.param


@pytest.fixture(scope="module")
def folder(model_type, tmp_path_factory):
    return tmp_path_factory.mktemp(model_type)


@pytest.fixture(scope="module")
def model(model_type, folder):
    """Where no weight is 0 or 1, as biases and norms are in a new one."""
    model = modeling.load(new_model(model_type, folder))
    random = np.random.default_rng(0)
    model.set_weights([array + random.normal(0, 0.1, array.shape) for array in model.get_weights()])
    return model


def test_what_a_tensorflow_class_writes_gives_the_same_logits_everywhere(model_type, model, folder):
    (folder / "model").mkdir()
    modeling.save(model, folder / "model")
    expected = model(IDS, training=False, return_dict=True).logits.numpy()
    for one in (each for each in installed().values() if model_type in each.model_types):
        np.testing.assert_allclose(one.load(written(folder))(IDS), expected, rtol=0, atol=1e-5)


def head_of(model, ids):
    """What is found in a graph, as arrays; None if nothing is."""

    @tf.function
    def found(ids):
        head = head_behind(model(ids, training=False, return_dict=True).logits)
        return head and head.output().of(tf.reshape(head.hidden, (-1, head.hidden.shape[-1])))

    return found(tf.constant(ids))


def test_the_head_of_each_class_is_found_and_scores_in_chunks(model, monkeypatch):
    monkeypatch.setattr(losses, "rows_of_chunk", lambda vocabulary: 16)
    monkeypatch.setattr(losses, "token_losses", seen := Seen(losses.token_losses))
    logits = model(IDS, training=False, return_dict=True).logits.numpy()
    np.testing.assert_allclose(head_of(model, IDS), logits.reshape(-1, logits.shape[-1]), rtol=1e-6, atol=1e-6)
    targets = losses.targets_of(IDS)
    expected, hits = (tf.reduce_sum(tf.cast(each, tf.float64)) for each in seen.function(logits, targets))
    found = score(model, IDS.astype(np.uint16), 3)
    np.testing.assert_allclose([found.loss_sum, found.correct], [expected, hits], rtol=1e-6)
    assert seen.shapes == [(None, logits.shape[-1])]


def test_a_step_of_each_class_can_be_traced(model):
    rows = {name: tf.constant(IDS) for name in ("input_ids", "labels")}
    step = tf.function(lambda rows: traced(model, _of_batch)(model, rows, tf.constant(45.0)))
    loss, gradients = step(rows)
    assert np.isfinite(loss)
    assert any(gradient is not None for gradient in gradients)


class Seen:
    """A function of logits that keeps their shapes."""

    def __init__(self, function):
        self.function, self.shapes = function, []

    def __call__(self, logits, targets):
        self.shapes.append(tuple(logits.shape))
        return self.function(logits, targets)


def test_a_head_with_an_adapter_is_more_than_a_product(tmp_path):
    model = modeling.load(new_model("gptj", tmp_path))
    assert isinstance(model.lm_head, DENSE)
    assert head_of(model, IDS) is not None
    adapt(model.lm_head, 2, scale=1.0, dropout=0.0)
    assert head_of(model, IDS) is None
