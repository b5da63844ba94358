"""One optimizer: TensorFlow's updates are those of `torch.optim.AdamW`, on the same parameters."""

import numpy as np
import pytest
import tensorflow as tf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import KINDS, new_model

import clm_pt.parts
import clm_tf.parts
from clm_core.config import TrainConfig
from clm_core.schedule import Schedule
from clm_pt import modeling as pytorch
from clm_pt.trainer import ScheduledTrainer
from clm_tf import modeling as tensorflow
from clm_tf import weights
from clm_tf.optimization import create_optimizer

SHAPES = {"model/h/mlp/kernel": (3, 4), "model/h/mlp/bias": (4,), "model/h/ln_1/gamma": (4,)}
KINDS_OF_SCHEDULE = ["linear", "cosine", "constant", "constant_with_warmup", "cosine_with_restarts", "inverse_sqrt"]

options = st.fixed_dictionaries(
    {
        "learning_rate": st.floats(1e-5, 1e-1),
        "weight_decay": st.floats(0, 1),
        "adam_beta1": st.floats(0, 0.99),
        "adam_beta2": st.floats(0.5, 0.9999),
        "adam_epsilon": st.floats(1e-8, 1e-2),
        "max_grad_norm": st.sampled_from([0.0, 0.1, 1.0, 100.0]),
        "lr_scheduler_type": st.sampled_from(KINDS_OF_SCHEDULE),
        "warmup_ratio": st.sampled_from([0.0, 0.3]),
    }
).filter(lambda given: given["lr_scheduler_type"] != "constant" or not given["warmup_ratio"])


@settings(max_examples=25)
@given(options, st.integers(0, 2**32 - 1), st.floats(-4, 2))
def test_updates_are_those_of_torchs_adamw(options, seed, size):
    config = TrainConfig(max_steps=6, **options)
    schedule = Schedule.from_config(config, blocks=64)
    random = np.random.default_rng(seed)
    values = [random.normal(size=shape).astype(np.float32) for shape in SHAPES.values()]
    gradients = [[(random.normal(size=v.shape) * 10**size).astype(np.float32) for v in values] for _ in range(6)]
    for found, expected in zip(
        by_tensorflow(schedule, config, values, gradients), by_torch(schedule, config, values, gradients), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5 * config.learning_rate + 1e-7)


def by_tensorflow(schedule, config, values, gradients):
    variables = [tf.Variable(value, name=name) for name, value in zip(SHAPES, values, strict=True)]
    optimizer = create_optimizer(schedule, config)
    for step in gradients:
        optimizer.apply_gradients(zip(map(tf.constant, step), variables, strict=True))
    return [variable.numpy() for variable in variables]


def by_torch(schedule, config, values, gradients):
    parameters = [torch.nn.Parameter(torch.from_numpy(value.copy())) for value in values]
    groups = [{"params": parameters[:1], "weight_decay": config.weight_decay}]
    groups.append({"params": parameters[1:], "weight_decay": 0.0})
    betas = (config.adam_beta1, config.adam_beta2)
    optimizer = torch.optim.AdamW(groups, betas=betas, eps=config.adam_epsilon)
    for number, step in enumerate(gradients):
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = torch.from_numpy(gradient.copy())
        if config.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate_at(number)
        optimizer.step()
    return [parameter.detach().numpy() for parameter in parameters]


@pytest.mark.parametrize("kind", KINDS)
def test_both_decay_the_same_parameters_and_neither_norms_nor_biases_and_have_the_same_embeddings(kind):
    of_torch, of_tensorflow = pytorch.load(new_model(kind)), tensorflow.load(new_model(kind))
    expected = set(ScheduledTrainer.get_decay_parameter_names(None, of_torch))
    assert expected
    assert not any("bias" in name or "norm" in name.split(".", 1)[1].lower() for name in expected)
    optimizer = create_optimizer(Schedule.from_config(TrainConfig(), blocks=64), TrainConfig(weight_decay=0.1))
    named = weights.pytorch_names(of_tensorflow)
    assert {name for name, variable in named.items() if optimizer.decays(variable)} == expected
    assert clm_tf.parts.embeddings(of_tensorflow) == clm_pt.parts.embeddings(of_torch) != []
