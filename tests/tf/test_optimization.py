"""The optimizer does what the core's definition of AdamW says, and so what PyTorch's does."""

import numpy as np
import pytest
import tensorflow as tf

from clm_core.config import OptimizationOptions, TrainConfig
from clm_core.optimizer import adamw, bias_corrections, clipping_factor
from clm_core.schedule import Schedule
from clm_tf.optimization import AdamWeightDecay, ScheduledLearningRate, create_optimizer

SHAPES = {"model/h/mlp/kernel": (3, 4), "model/h/attn/r_w_bias": (3, 4), "model/h/ln/gamma": (4,), "model/h/bias": (4,)}
SCHEDULES = [("linear", 0), ("linear", 3), ("cosine", 0), ("cosine", 3), ("constant", 0), ("constant_with_warmup", 3)]


def new_schedule(**options):
    return Schedule.from_config(TrainConfig(per_device_train_batch_size=2, **options), blocks=20)


@pytest.mark.parametrize(("kind", "warmup"), SCHEDULES)
def test_the_learning_rate_is_the_schedules(kind, warmup):
    schedule = new_schedule(lr_scheduler_type=kind, warmup_steps=warmup, max_steps=11, learning_rate=3e-4)
    rate = ScheduledLearningRate.from_config(ScheduledLearningRate(schedule).get_config())
    found = [float(rate(tf.constant(float(step)))) for step in range(13)]
    np.testing.assert_allclose(found, [schedule.learning_rate_at(step) for step in range(13)], rtol=1e-7, atol=1e-30)


def by_definition(values, gradients, rates, options, decayed):
    """The core's AdamW, in float64."""
    values = [value.astype(np.float64) for value in values]
    first, second = ([np.zeros_like(value) for value in values] for _ in range(2))
    for update, (step, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        factor = clipping_factor(np.sqrt(sum((gradient**2).sum() for gradient in step)), options.max_grad_norm)
        for i, gradient in enumerate(step):
            rates_of_step = {"learning_rate": rate, "corrections": bias_corrections(update, options)}
            moments = first[i], second[i]
            values[i], first[i], second[i] = adamw(
                values[i], gradient * factor, *moments, **rates_of_step, config=options, decays=decayed[i]
            )
    return values


@pytest.mark.parametrize("max_grad_norm", [0.0, 0.5, 100.0])
def test_updates_are_those_of_the_cores_adamw(max_grad_norm):
    options = OptimizationOptions(
        learning_rate=1e-2, weight_decay=0.3, adam_epsilon=1e-3, adam_beta2=0.9, max_grad_norm=max_grad_norm
    )
    schedule = new_schedule(max_steps=8, learning_rate=1e-2)
    random = np.random.default_rng(1)
    values = [random.normal(size=shape).astype(np.float32) for shape in SHAPES.values()]
    gradients = [[random.normal(size=value.shape) * 1e-2 * 4**t for value in values] for t in range(8)]
    variables = [tf.Variable(value, name=name) for value, name in zip(values, SHAPES, strict=True)]
    optimizer = create_optimizer(schedule, options)
    for step in gradients:
        pairs = zip([tf.constant(gradient, tf.float32) for gradient in step], variables, strict=True)
        optimizer.apply_gradients(pairs)
    rates = [schedule.learning_rate_at(step) for step in range(8)]
    for found, expected in zip(
        variables, by_definition(values, gradients, rates, options, [True, False, False, False]), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("patterns", "decayed"),
    [
        ({}, [1, 0, 0, 0]),
        ({"include_in_weight_decay": [""]}, [1, 1, 1, 1]),
        ({"include_in_weight_decay": ["gamma"], "exclude_from_weight_decay": [""]}, [0, 0, 1, 0]),
        ({"exclude_from_weight_decay": ["attn"]}, [1, 0, 1, 1]),
    ],
)
def test_matrices_that_are_no_biases_decay_unless_patterns_say_otherwise(patterns, decayed):
    variables = [tf.Variable(np.ones(shape, np.float32), name=name) for name, shape in SHAPES.items()]
    optimizer = AdamWeightDecay(0.1, weight_decay_rate=0.5, **patterns)
    optimizer.apply_gradients([(tf.zeros_like(variable), variable) for variable in variables])
    assert [round(float(np.ravel(variable)[0]), 6) for variable in variables] == [1 - 0.05 * it for it in decayed]


def test_everything_decays_where_everything_is_to():
    options = OptimizationOptions(weight_decay=0.5)
    optimizer = create_optimizer(new_schedule(max_steps=8), options, decay_all=True)
    assert all(optimizer.decays(tf.Variable(np.ones(shape), name=name)) for name, shape in SHAPES.items())


def test_a_variable_without_a_gradient_is_left_as_it_is():
    variable, other = (tf.Variable([[1.0]], name="model/kernel") for _ in range(2))
    optimizer = create_optimizer(new_schedule(max_steps=8), OptimizationOptions(weight_decay=0.5))
    optimizer.apply_gradients([(None, variable), (tf.constant([[1.0]]), other)])
    assert (variable.numpy().item(), optimizer.moment(variable, "m")) == (1.0, None)
    assert (other.numpy().item() < 1.0, optimizer.updates_of(other)) == (True, 1)


def test_a_variable_that_missed_updates_is_corrected_by_those_it_has_had():
    options = OptimizationOptions(learning_rate=1e-2, adam_epsilon=1e-3, weight_decay=0.0, max_grad_norm=0.0)
    schedule, values = new_schedule(max_steps=8, learning_rate=1e-2, lr_scheduler_type="constant"), []
    for step, missed in ((0, 0), (5, 5)):
        variable = tf.Variable([[1.0]], name="model/kernel")
        optimizer = create_optimizer(schedule, options)
        optimizer.restore(step, [(variable, step - missed)])
        for gradient in (1.0, 3.0):
            optimizer.apply_gradients([(tf.constant([[gradient]]), variable)])
        assert (int(optimizer.iterations), optimizer.updates_of(variable)) == (step + 2, 2)
        values.append(variable.numpy().item())
    assert values[0] == values[1]


def test_the_sparse_gradient_of_an_embedding_is_applied_as_a_dense_one():
    optimizer = create_optimizer(new_schedule(max_steps=3), OptimizationOptions(weight_decay=0.0))
    one, other = (tf.Variable(np.ones((5, 2), np.float32), name="embeddings") for _ in range(2))
    sparse = tf.IndexedSlices(tf.ones((3, 2)), tf.constant([1, 1, 4]), tf.constant([5, 2]))
    optimizer.apply_gradients([(sparse, one), (tf.convert_to_tensor(sparse), other)])
    np.testing.assert_array_equal(one, other)
    assert float(optimizer.last_grad_norm) == pytest.approx(np.sqrt(2 * (2**2 + 1**2 + 2**2 + 1**2)))
