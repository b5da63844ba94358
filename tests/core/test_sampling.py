"""The next token: the most likely one, or one drawn as the options say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.config import SamplingOptions
from clm_core.errors import ModelError
from clm_core.sampling import choose, probabilities

LOGITS = np.log([0.4, 0.3, 0.2, 0.1])
NOTHING = np.random.default_rng(0)


def drawn(**options):
    """The probabilities of four tokens with 40, 30, 20 and 10 percent."""
    return probabilities(LOGITS, SamplingOptions(do_sample=True, **{"top_k": 0} | options))


def test_without_sampling_the_first_of_the_most_likely_tokens_is_chosen():
    assert choose(np.float32([0.0, 2.0, -np.inf, 2.0]), SamplingOptions(), NOTHING) == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.4, 0.3, 0.2, 0.1]),
        ({"top_k": 2}, [4 / 7, 3 / 7, 0, 0]),
        ({"top_k": 9}, [0.4, 0.3, 0.2, 0.1]),
        ({"top_p": 0.35}, [1, 0, 0, 0]),
        ({"top_p": 0.41}, [4 / 7, 3 / 7, 0, 0]),
        ({"top_p": 1e-9}, [1, 0, 0, 0]),
        ({"top_k": 2, "top_p": 0.5}, [1, 0, 0, 0]),  # top_k is first: then the likeliest has 4/7.
        ({"temperature": 0.5}, [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        ({"temperature": 1e-300}, [1, 0, 0, 0]),
        ({"temperature": 0.5, "top_p": 0.5}, [1, 0, 0, 0]),  # And so is temperature: then it has 16/30.
    ],
)
def test_each_option_narrows_what_is_drawn_as_it_says(options, expected):
    np.testing.assert_allclose(drawn(**options), expected, atol=1e-12)


def test_tokens_as_likely_as_the_last_of_top_k_stay():
    found = probabilities([1.0, 3.0, 1.0, 0.0], SamplingOptions(do_sample=True, top_k=2))
    assert (found > 0).tolist() == [True, True, True, False]


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=8), st.integers(0, 8), st.floats(0.01, 1))
def test_what_is_drawn_can_be_drawn(logits, top_k, top_p):
    config = SamplingOptions(do_sample=True, top_k=top_k, top_p=top_p)
    found = probabilities(logits, config)
    assert found.sum() == pytest.approx(1)
    assert found[choose(logits, config, NOTHING)] > 0
    assert max(np.array(logits)[found > 0]) == max(logits)


def test_tokens_are_drawn_as_often_as_they_are_probable_and_the_same_for_the_same_seed():
    config, counts = SamplingOptions(do_sample=True, top_k=3), np.zeros(4)
    one, other = np.random.default_rng(1), np.random.default_rng(1)
    for _ in range(2000):
        token = choose(LOGITS, config, one)
        counts[token] += 1
        assert token == choose(LOGITS, config, other)
    np.testing.assert_allclose(counts / 2000, [4 / 9, 3 / 9, 2 / 9, 0], atol=0.04)


@pytest.mark.parametrize("logits", [[0.0, np.nan], [np.inf, 0.0], [-np.inf, -np.inf]])
@pytest.mark.parametrize("do_sample", [True, False])
def test_logits_of_which_no_token_can_be_chosen_are_refused(logits, do_sample):
    with pytest.raises(ModelError, match="NaN or infinite"):
        choose(logits, SamplingOptions(do_sample=do_sample), NOTHING)
