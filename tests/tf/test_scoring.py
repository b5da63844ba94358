"""Scores are sums over tokens."""

import numpy as np

from clm_core.backend import BatchScored, EvaluationJob
from clm_core.config import EvaluationOptions
from clm_tf import modeling
from clm_tf.backend import TensorFlowBackend
from clm_tf.scoring import score


def test_a_score_is_what_numpy_makes_of_the_logits(new_model, blocks):
    model = modeling.load(new_model(dropout=0.5))
    logits = model(blocks.astype(np.int64)).logits.numpy()[:, :-1].astype(np.float64)
    targets = blocks[:, 1:].astype(np.int64)
    likelihoods = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    found = score(model, blocks, 8, lambda event: None)
    np.testing.assert_allclose(
        found.loss_sum, -np.take_along_axis(likelihoods, targets[..., None], -1).sum(), rtol=1e-6
    )
    assert found.correct == (logits.argmax(-1) == targets).sum()
    assert found.tokens == targets.size


def test_each_batch_is_reported_and_none_depends_on_the_others(new_model, blocks):
    model, events = modeling.load(new_model()), []
    together = score(model, blocks, 8, events.append)
    assert events == [BatchScored(blocks=rows) for rows in (8, 8, 8, 3)]
    parts = [score(model, part, 5, events.append) for part in (blocks[:10], blocks[10:])]
    np.testing.assert_allclose((parts[0] + parts[1]).loss_sum, together.loss_sum, rtol=1e-6)


def test_bf16_changes_a_score_a_little(new_model, blocks):
    def evaluate(bf16):
        config = EvaluationOptions(bf16=bf16)
        job = EvaluationJob(model=new_model(), blocks=blocks, config=config, report=lambda event: None)
        return TensorFlowBackend().evaluate(job).loss

    assert 0 < abs(evaluate(True) - evaluate(False)) < 1e-2
