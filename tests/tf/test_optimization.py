"""The optimizer does what PyTorch's does, written out in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from clm_core.config import OptimizationOptions, TrainConfig
from clm_core.schedule import Schedule
from clm_tf.optimization import ScheduledLearningRate, create_optimizer

SCHEDULES = [("linear", 0), ("linear", 3), ("cosine", 0), ("cosine", 3), ("constant", 0), ("constant_with_warmup", 3)]


def new_schedule(**options):
    return Schedule.from_config(TrainConfig(per_device_train_batch_size=2, **options), blocks=20)


@pytest.mark.parametrize(("kind", "warmup"), SCHEDULES)
def test_the_learning_rate_is_the_schedules(kind, warmup):
    schedule = new_schedule(lr_scheduler_type=kind, warmup_steps=warmup, max_steps=11, learning_rate=3e-4)
    rate = ScheduledLearningRate.from_config(ScheduledLearningRate(schedule).get_config())
    found = [float(rate(tf.constant(float(step)))) for step in range(13)]
    np.testing.assert_allclose(found, [schedule.learning_rate_at(step) for step in range(13)], rtol=1e-7, atol=1e-30)


def adamw(values, gradients, rates, options, decayed):
    """`torch.optim.AdamW` after `clip_grad_norm_`, in float64."""
    values = [value.astype(np.float64) for value in values]
    first, second = ([np.zeros_like(value) for value in values] for _ in range(2))
    for t, (step, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        norm = np.sqrt(sum((gradient**2).sum() for gradient in step))
        scale = min(1.0, options.max_grad_norm / (norm + 1e-6)) if options.max_grad_norm else 1.0
        for i, gradient in enumerate(step):
            g = gradient * scale
            values[i] *= 1 - rate * options.weight_decay * decayed[i]
            first[i] = options.adam_beta1 * first[i] + (1 - options.adam_beta1) * g
            second[i] = options.adam_beta2 * second[i] + (1 - options.adam_beta2) * g**2
            root = np.sqrt(second[i] / (1 - options.adam_beta2**t)) + options.adam_epsilon
            values[i] -= rate * first[i] / (1 - options.adam_beta1**t) / root
    return values


@pytest.mark.parametrize("max_grad_norm", [0.0, 0.5, 100.0])
def test_updates_equal_pytorchs_adamw(max_grad_norm):
    options = OptimizationOptions(
        learning_rate=1e-2, weight_decay=0.3, adam_epsilon=1e-3, adam_beta2=0.9, max_grad_norm=max_grad_norm
    )
    schedule = new_schedule(max_steps=8, learning_rate=1e-2)
    random = np.random.default_rng(1)
    names = ["model/h/mlp/kernel", "model/h/mlp/bias", "model/h/ln_1/gamma", "model/h/input_layernorm/weight"]
    values = [random.normal(size=(3, 4)).astype(np.float32) for _ in names]
    gradients = [[random.normal(size=(3, 4)) * 1e-2 * 4**t for _ in names] for t in range(8)]
    variables = [tf.Variable(value, name=name) for value, name in zip(values, names, strict=True)]
    optimizer = create_optimizer(schedule, options)
    for step in gradients:
        pairs = zip([tf.constant(gradient, tf.float32) for gradient in step], variables, strict=True)
        optimizer.apply_gradients(pairs)
    rates = [schedule.learning_rate_at(step) for step in range(8)]
    for found, expected in zip(variables, adamw(values, gradients, rates, options, [1, 0, 0, 0]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_norms_and_biases_decay_where_everything_is_to():
    names = ["model/h/mlp/kernel", "model/h/mlp/bias", "model/h/ln_1/gamma"]
    variables = [tf.Variable([1.0], name=name) for name in names]
    options = OptimizationOptions(learning_rate=0.1, weight_decay=0.5)
    for decay_all, expected in ((False, [0.95, 1.0, 1.0]), (True, [0.95, 0.95, 0.95])):
        for variable in variables:
            variable.assign([1.0])
        schedule = new_schedule(max_steps=8, learning_rate=0.1)
        optimizer = create_optimizer(schedule, options, decay_all=decay_all)
        optimizer.apply_gradients([(tf.constant([0.0]), variable) for variable in variables])
        np.testing.assert_allclose(np.ravel(variables), expected)


def test_the_sparse_gradient_of_an_embedding_is_applied_as_a_dense_one():
    optimizer = create_optimizer(new_schedule(max_steps=3), OptimizationOptions(weight_decay=0.0))
    one, other = (tf.Variable(np.ones((5, 2), np.float32), name="embeddings") for _ in range(2))
    sparse = tf.IndexedSlices(tf.ones((3, 2)), tf.constant([1, 1, 4]), tf.constant([5, 2]))
    optimizer.apply_gradients([(sparse, one), (tf.convert_to_tensor(sparse), other)])
    np.testing.assert_array_equal(one, other)
    assert float(optimizer.last_grad_norm) == pytest.approx(np.sqrt(2 * (2**2 + 1**2 + 2**2 + 1**2)))


def test_the_batches_of_a_step_are_averaged_by_their_rows():
    config = TrainConfig(per_device_train_batch_size=4, gradient_accumulation_steps=3, num_train_epochs=1)
    schedule = Schedule.from_config(config, blocks=18)  # batches of 4 4 4 | 4 2
    optimizer = create_optimizer(schedule, config)
    variable = tf.Variable([0.0], name="kernel")
    norms = []
    for gradient in (1.0, 2.0, 6.0, 1.0, 7.0):
        optimizer.apply_gradients([(tf.constant([gradient]), variable)])
        norms.append((int(optimizer.iterations), float(optimizer.last_grad_norm)))
    assert np.array(norms) == pytest.approx(np.array([(0, 0), (0, 0), (1, 3), (1, 3), (2, 3)]))
