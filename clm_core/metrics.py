"""Loss, perplexity, accuracy and bits per byte, as `evaluate.Metric` modules that need no network.

Each takes sums over any number of batches, so that the result does not depend on how the tokens were
batched: a mean of means is not the mean of the corpus when the last batch is short.
"""

import math
from typing import Any

import datasets
import evaluate

from clm_core.backend import Score


class _TokenMetric(evaluate.Metric):  # type: ignore[misc]
    """A metric over `loss_sum` (nats), `correct` and `tokens` of each batch."""

    def _info(self) -> evaluate.MetricInfo:
        names = {"loss_sum": "float64", "correct": "int64", "tokens": "int64"}
        return evaluate.MetricInfo(
            description=self.__doc__,
            citation="",
            inputs_description=_TokenMetric.__doc__,
            features=datasets.Features({name: datasets.Value(dtype) for name, dtype in names.items()}),
        )


class Loss(_TokenMetric):
    """Mean negative log likelihood of a token, in nats."""

    def _compute(self, *, loss_sum: Any, correct: Any, tokens: Any) -> dict[str, float]:
        return {"loss": math.fsum(loss_sum) / sum(tokens)}


class Perplexity(_TokenMetric):
    """The exponential of the loss; infinite where that is above the largest float."""

    def _compute(self, *, loss_sum: Any, correct: Any, tokens: Any) -> dict[str, float]:
        return {"perplexity": _exp(math.fsum(loss_sum) / sum(tokens))}


class Accuracy(_TokenMetric):
    """The share of tokens that the model ranked first."""

    def _compute(self, *, loss_sum: Any, correct: Any, tokens: Any) -> dict[str, float]:
        return {"accuracy": sum(correct) / sum(tokens)}


class BitsPerByte(_TokenMetric):
    """The loss in bits for each byte of text, which compares models of different tokenizers.

    As in "The Pile" (Gao et al., 2020, section 3.1): loss / ln 2 x tokens / bytes, both of the whole split.
    """

    def _compute(self, *, loss_sum: Any, correct: Any, tokens: Any, bytes_per_token: float) -> dict[str, float]:
        return {"bits_per_byte": math.fsum(loss_sum) / sum(tokens) / math.log(2) / bytes_per_token}


def compute(score: Score, *, bytes_per_token: float) -> dict[str, float | int]:
    """All metrics of a score, with the number of tokens it is of."""
    sums = {"loss_sum": [score.loss_sum], "correct": [score.correct], "tokens": [score.tokens]}
    results: dict[str, float | int] = {}
    for metric in (Loss, Perplexity, Accuracy):
        results |= metric(keep_in_memory=True).compute(**sums)
    results |= BitsPerByte(keep_in_memory=True).compute(**sums, bytes_per_token=bytes_per_token)
    return {**results, "tokens_scored": score.tokens}


def _exp(loss: float) -> float:
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
