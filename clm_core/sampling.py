"""The next token, chosen from a model's logits as transformers' `generate` chooses it."""

import numpy as np
import numpy.typing as npt

from clm_core.config import SamplingOptions
from clm_core.errors import ModelError

Array = npt.NDArray[np.float64]


def choose(logits: npt.ArrayLike, config: SamplingOptions, random: np.random.Generator) -> int:
    """Return the id of the next token.

    `logits` are the scores of the whole vocabulary after the last token: shape (vocabulary,), any floating-point type;
    -inf marks a token that never comes. Without `do_sample`, the most likely token is chosen, the first if several are
    equally likely. `random` is used only with `do_sample`, once per token; seed it with `config.seed`.

    Raises:
        ModelError: a logit is NaN, or there is none that is finite.
    """
    scores = np.asarray(logits, np.float64)
    if not np.isfinite(scores.max()):  # NaN is the maximum wherever there is one.
        raise ModelError("the model's logits are NaN or infinite, so no token can be chosen: its training diverged")
    if not config.do_sample:
        return int(scores.argmax())
    return int(random.choice(scores.size, p=probabilities(scores, config)))


def probabilities(logits: npt.ArrayLike, config: SamplingOptions) -> Array:
    """Return the probability with which each token is drawn: float64, shape (vocabulary,).

    In the order of transformers: divide by `temperature`; keep the `top_k` most likely tokens, and those as likely as
    the last of them; of these, keep the most likely ones whose probabilities add up to `top_p`, at least one.
    """
    scores = np.asarray(logits, np.float64)
    scores = (scores - scores.max()) / config.temperature
    if 0 < config.top_k < scores.size:
        scores[scores < np.partition(scores, -config.top_k)[-config.top_k]] = -np.inf
    shares: Array = np.exp(scores)
    shares /= shares.sum()
    if config.top_p < 1.0:
        rising = np.argsort(scores, kind="stable")  # Shares tell less: of two that are equal, the logits may not be.
        shares[rising[:-1][np.cumsum(shares[rising[:-1]]) <= 1.0 - config.top_p]] = 0.0
    shares /= shares.sum()
    return shares
