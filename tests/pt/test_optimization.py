"""Gradients are clipped as PyTorch does it, by a norm that is right to the last digits."""

import numpy as np
import pytest
import torch

from clm_pt.optimization import clip


def parameters(*gradients):
    found = [torch.nn.Parameter(torch.zeros(gradient.shape)) for gradient in gradients]
    for parameter, gradient in zip(found, gradients, strict=True):
        parameter.grad = gradient.clone()
    return [*found, torch.nn.Parameter(torch.zeros(2))]  # One without a gradient.


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e3])
def test_it_does_what_torch_does(max_norm):
    gradients = [torch.randn(size, generator=torch.Generator().manual_seed(1)) for size in [(3, 4), (5,), (2, 3, 4)]]
    found, expected = parameters(*gradients), parameters(*gradients)
    norm = clip(found, max_norm)
    assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(expected, max_norm or 1e9)), rel=1e-6)
    for one, other in zip(found[:3], expected[:3], strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_small_gradients_of_a_large_embedding_are_not_lost():
    gradient = torch.full((50_000, 128), 1e-4)
    gradient[0] = 1.0
    exact = np.sqrt(np.square(gradient.numpy().astype(np.float64)).sum())
    assert clip(parameters(gradient), 0.0) == pytest.approx(exact, rel=1e-6)
