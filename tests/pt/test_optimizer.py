"""The core's definition of AdamW, against PyTorch's optimizer and its clipping."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_core.config import OptimizationOptions
from clm_core.optimizer import adamw, bias_corrections, clipping_factor

OPTIONS = st.fixed_dictionaries(
    {
        "learning_rate": st.floats(1e-5, 1e-1),
        "weight_decay": st.floats(0, 1),
        "adam_beta1": st.sampled_from([0.0, 0.6, 0.9]),
        "adam_beta2": st.sampled_from([0.0, 0.9, 0.999, 0.99999]),
        "adam_epsilon": st.floats(1e-8, 1e-2),
        "max_grad_norm": st.sampled_from([0.0, 0.3, 1.0, 100.0]),
    }
)


@settings(max_examples=30)
@given(OPTIONS, st.booleans(), st.integers(0, 2**32 - 1))
def test_updates_are_those_of_torchs_adamw_after_its_clipping(options, decays, seed):
    config, random = OptimizationOptions(**options), np.random.default_rng(seed)
    found = random.normal(size=(3, 4)).astype(np.float32)
    expected = torch.nn.Parameter(torch.from_numpy(found.copy()))
    optimizer = torch.optim.AdamW([expected], config.learning_rate, (config.adam_beta1, config.adam_beta2))
    optimizer.param_groups[0].update(eps=config.adam_epsilon, weight_decay=config.weight_decay * decays)
    first = second = np.zeros_like(found)
    for update in range(1, 6):
        gradient = random.normal(size=found.shape).astype(np.float32)
        expected.grad = torch.from_numpy(gradient.copy())
        norm = torch.nn.utils.clip_grad_norm_([expected], config.max_grad_norm or float("inf"))
        optimizer.step()
        gradient = gradient * clipping_factor(np.float64(norm), config.max_grad_norm)
        rates = {"learning_rate": np.float64(config.learning_rate), "corrections": bias_corrections(update, config)}
        found, first, second = adamw(found, gradient, first, second, **rates, config=config, decays=decays)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-6, atol=5e-7)
