"""The core's choice of tokens, against transformers' own LogitsProcessors."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from clm_core.config import SamplingOptions
from clm_core.sampling import probabilities

LOGITS = st.lists(st.integers(-40, 40).map(lambda number: number / 8), min_size=2, max_size=12)
"""Multiples of an eighth, so that some are equal."""


@given(LOGITS, st.integers(1, 12), st.integers(1, 1000), st.sampled_from([0.25, 0.7, 1.0, 1.6]))
def test_tokens_have_the_probabilities_of_transformers(logits, top_k, thousandths, temperature):
    top_p = thousandths / 1000 - 0.0003  # Beside round numbers, at which float32 and float64 would differ by rounding.
    scores = torch.tensor([logits], dtype=torch.float64)
    for warper in (TemperatureLogitsWarper(temperature), TopKLogitsWarper(top_k), TopPLogitsWarper(top_p)):
        scores = warper(torch.zeros(1, 1), scores)
    config = SamplingOptions(do_sample=True, top_k=top_k, top_p=top_p, temperature=temperature)
    np.testing.assert_allclose(probabilities(logits, config), scores.softmax(-1)[0].numpy(), rtol=1e-9, atol=1e-12)
