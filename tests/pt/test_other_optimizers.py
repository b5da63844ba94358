"""The core's definitions of Adafactor and Muon, against those of transformers and PyTorch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.optimization import Adafactor

from clm_core.config import OptimizationOptions
from clm_core.optimizer import Step, adafactor, muon
from clm_core.optimizer.rules import OF_ADAFACTOR, OF_MUON

OPTIONS = st.fixed_dictionaries({"learning_rate": st.floats(1e-5, 1e-1), "weight_decay": st.floats(0, 1)})


def zeros(rule, shape):
    return {part: np.zeros(size, np.float32) for part, size in rule.state(shape).items()}


def follow(theirs, shape, update, state, *, seed, scale=1.0):
    """A parameter after five updates by an optimizer of PyTorch's kind, and by `update`."""
    random = np.random.default_rng(seed)
    found = random.normal(size=shape).astype(np.float32)
    expected = torch.nn.Parameter(torch.from_numpy(found.copy()))
    optimizer = theirs([expected])
    for number in range(1, 6):
        gradient = (random.normal(size=shape) * scale).astype(np.float32)
        expected.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        found, state = update(found, gradient, state, number)
    assert found.dtype == np.float32
    return found, expected.detach().numpy()


@settings(max_examples=30)
@given(OPTIONS, st.sampled_from([(4,), (3, 4), (2, 3, 4)]), st.booleans(), st.floats(-8, 4), st.integers(0, 2**32 - 1))
def test_updates_are_those_of_transformers_adafactor(options, shape, decays, size, seed):
    config = OptimizationOptions(**options)
    settings = {"scale_parameter": False, "relative_step": False, "weight_decay": config.weight_decay * decays}

    def update(parameter, gradient, state, updates):
        rates = {"learning_rate": np.float64(config.learning_rate), "updates": updates}
        return adafactor(parameter, gradient, state, **rates, config=config, decays=decays, xp=np)

    found, expected = follow(
        *(lambda parameters: Adafactor(parameters, lr=config.learning_rate, **settings), shape, update),
        *(zeros(OF_ADAFACTOR, shape),),
        seed=seed,
        scale=10.0**size,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=5e-7)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="an earlier PyTorch has no Muon")
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)], ids=str)
@pytest.mark.parametrize(("in_float32", "off"), [(True, 1e-6), (False, 0.03)], ids=["in float32", "in its bfloat16"])
def test_updates_are_those_of_torchs_muon(shape, in_float32, off, monkeypatch):
    if in_float32:
        monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    config = OptimizationOptions(learning_rate=0.1, weight_decay=0.3)
    settings = {"lr": 0.1, "weight_decay": 0.3, "adjust_lr_fn": "match_rms_adamw"}

    def update(parameter, gradient, state, _):
        return muon(parameter, gradient, state, learning_rate=0.1, config=config, decays=True, xp=np)

    found, expected = follow(
        lambda parameters: torch.optim.Muon(parameters, **settings), shape, update, zeros(OF_MUON, shape), seed=1
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=off)


@pytest.mark.parametrize("rule", [OF_ADAFACTOR, OF_MUON], ids=["adafactor", "muon"])
def test_a_matrix_may_be_stored_either_way_round(rule):
    random = np.random.default_rng(3)
    matrix, gradient = random.normal(size=(2, 7, 4)).astype(np.float32)
    step = Step(learning_rate=0.1, updates=1, corrections=(1, 1), config=OptimizationOptions(), xp=np)
    found, _ = rule.update(matrix, gradient, zeros(rule, matrix.shape), step, True)
    other, _ = rule.update(matrix.T, gradient.T, zeros(rule, matrix.T.shape), step, True)
    np.testing.assert_allclose(found, other.T, rtol=0, atol=2e-6)
