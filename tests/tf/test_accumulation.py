"""One batch of Keras is one step, of `clm_tf.load`'s models in batches, of any others at once, with the same result."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from probe import new_model as new_model_of
from transformers import TFGPT2LMHeadModel

import clm_tf
from clm_core.backend import IGNORED, StepDone
from clm_tf import accumulation, losses, weights
from clm_tf.modeling import seeder

ACCUMULATED = {"per_device_train_batch_size": 4, "train_batch_size": 7, "num_train_epochs": 1, "learning_rate": 0.01}
"""27 blocks: steps of 4 + 3, the last of 4 + 2."""


@pytest.fixture
def fitted(new_job, new_model, blocks):
    """`fit` as people call it; returns the losses and norms of the steps, and the history."""

    def fit(build, **options):
        schedule = (job := new_job(**ACCUMULATED)).schedule
        model, events = build(new_model()), []
        model.compile(optimizer=clm_tf.create_optimizer(schedule, job.config), **options)
        report = clm_tf.StepReport(schedule, events.append)
        found = model.fit(clm_tf.training_dataset(blocks, schedule), callbacks=[report], verbose=0)
        return [(event.loss, event.grad_norm) for event in events if isinstance(event, StepDone)], found.history

    return fit


def of_transformers(model):
    """The same weights in a model that clm has not changed."""
    loaded, plain = clm_tf.load(model), TFGPT2LMHeadModel(model.architecture)
    plain.build_in_name_scope()
    plain.set_weights(loaded.get_weights())
    return plain


def test_a_step_is_the_same_in_batches_and_at_once(fitted):
    in_batches, history = fitted(clm_tf.load)
    at_once, _ = fitted(of_transformers)
    assert len(in_batches) == 4
    np.testing.assert_allclose(in_batches, at_once, rtol=1e-5)
    assert history["loss"] == [pytest.approx(in_batches[-1][0])]


def test_metrics_of_ones_own_see_all_rows_of_a_step(fitted):
    accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    steps, history = fitted(clm_tf.load, metrics=[accuracy])
    assert (len(steps), accuracy.count.numpy()) == (4, 6 * 12)
    assert 0 <= history["accuracy"][0] <= 1


@pytest.mark.parametrize(("rows", "batches"), [(3, [3]), (5, [3, 3]), (7, [4, 4])])
def test_no_more_rows_than_a_batch_are_computed_at_a_time(new_job, new_model, blocks, rows, batches):
    model, seen = clm_tf.load(new_model()), []
    model.compile(optimizer=clm_tf.create_optimizer(new_job(**ACCUMULATED).schedule, new_job().config))
    compute_loss = model.hf_compute_loss

    def counted(labels, logits):
        tf.py_function(lambda labels: seen.append(len(labels)), [labels], [])
        return compute_loss(labels, logits)

    model.hf_compute_loss = counted
    ids = blocks[:rows].astype(np.int64)
    model.train_on_batch({"input_ids": ids, "labels": ids})
    assert seen == batches


IDS = np.random.default_rng(0).integers(0, 64, (3, 16))
LABELS = np.where(np.random.default_rng(1).random(IDS.shape) < 0.5, IDS, IGNORED)


def loss_and_gradients(model):
    """Of a batch half of whose tokens count, in a step of 100 tokens; dense."""

    @tf.function
    def computed(rows):
        loss, found = accumulation._of_batch(model, rows, tf.constant(100.0))
        return loss, [it if it is None else tf.convert_to_tensor(it) for it in found]

    seeder(model)(3)
    return computed({"input_ids": tf.constant(IDS), "labels": tf.constant(LABELS)})


@pytest.mark.parametrize(("kind", "bf16"), [("gpt2", False), ("gpt2", True), ("bert", False), ("gptj", False)])
def test_chunks_of_the_head_have_the_loss_and_the_gradients_of_the_whole(kind, bf16, tmp_path, monkeypatch):
    monkeypatch.setattr(losses, "rows_of_chunk", lambda vocabulary: 16)
    with clm_tf.precision(bf16):
        model = clm_tf.load(new_model_of(kind, tmp_path))
        loss, found = loss_and_gradients(model)
        monkeypatch.setattr(accumulation, "head_behind", lambda logits: None)
        expected, whole = loss_and_gradients(model)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert [it is None for it in found] == [it is None for it in whole]
    pairs = [(one, other) for one, other in zip(found, whole, strict=True) if one is not None]
    apart = tf.linalg.global_norm([one - other for one, other in pairs])
    assert apart < (1e-2 if bf16 else 1e-6) * tf.linalg.global_norm([other for _, other in pairs])


def test_no_gradient_of_a_frozen_head_is_computed(tmp_path, monkeypatch):
    model, wanted = clm_tf.load(new_model_of("gptj", tmp_path)), []
    weights.freeze(model, {model.lm_head.kernel.ref()})

    def computed(hidden, output, *others):
        wanted.append([tuple(it.shape) for it in output.parameters])
        return losses.gradients_in_chunks(hidden, output, *others)

    monkeypatch.setattr(accumulation, "gradients_in_chunks", computed)
    _, found = loss_and_gradients(model)
    assert wanted == [[tuple(model.lm_head.bias.shape)]]
    assert len(found) == len(model.trainable_variables)


def test_a_step_is_traced_once(fitted, monkeypatch):
    traced, of_batch = [], accumulation._of_batch
    monkeypatch.setattr(accumulation, "_of_batch", lambda *given: traced.append(given) or of_batch(*given))
    steps, _ = fitted(clm_tf.load)
    assert (len(steps), len(traced)) == (4, 1)
