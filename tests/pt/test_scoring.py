"""Scores are sums over tokens."""

import numpy as np
import pytest
import torch

from clm_core.backend import BatchScored, EvaluationJob
from clm_core.config import EvaluationOptions
from clm_pt import modeling
from clm_pt.backend import PyTorchBackend
from clm_pt.scoring import score
from clm_pt.training import create_trainer


def in_numpy(model, blocks):
    """The sum of the losses, and how many tokens were foreseen."""
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(blocks.astype(np.int64))).logits.numpy()[:, :-1].astype(np.float64)
    targets = blocks[:, 1:].astype(np.int64)
    likelihoods = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -np.take_along_axis(likelihoods, targets[..., None], -1).sum(), (logits.argmax(-1) == targets).sum()


def evaluate(model, blocks, **options):
    options = EvaluationOptions(**({"per_device_eval_batch_size": 8} | options))
    return PyTorchBackend().evaluate(EvaluationJob(model=model, blocks=blocks, config=options, report=[].append))


def test_a_score_is_what_numpy_makes_of_the_logits(new_model, blocks):
    model = new_model(dropout=0.5)
    loss_sum, correct = in_numpy(modeling.load(model), blocks)
    found = evaluate(model, blocks)
    np.testing.assert_allclose(found.loss_sum, loss_sum, rtol=1e-6)
    assert (found.correct, found.tokens) == (correct, blocks[:, 1:].size)


def test_each_batch_is_reported_and_none_depends_on_the_others(new_model, blocks):
    model, events = modeling.load(new_model()), []
    options = EvaluationOptions(per_device_eval_batch_size=8)
    together = score(model, blocks, options, events.append)
    assert events == [BatchScored(blocks=rows) for rows in (8, 8, 8, 3)]
    parts = score(model, blocks[:10], options, events.append) + score(model, blocks[10:], options, events.append)
    np.testing.assert_allclose(parts.loss_sum, together.loss_sum, rtol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_a_model_is_left_in_its_mode(new_model, blocks, training):
    model = modeling.load(new_model(dropout=0.5)).train(training)
    score(model, blocks, EvaluationOptions(), lambda event: None)
    assert model.training == training


def test_bf16_changes_a_score_a_little(new_model, blocks):
    rounded, exact = evaluate(new_model(), blocks, bf16=True), evaluate(new_model(), blocks)
    assert 0 < abs(rounded.loss - exact.loss) < 1e-2


@pytest.mark.parametrize("bf16", [False, True])
def test_options_stand_for_the_size_of_batches_and_the_precision(new_model, blocks, bf16):
    model, options = modeling.load(new_model()), EvaluationOptions(per_device_eval_batch_size=4, bf16=bf16)
    with modeling.precision(bf16):
        expected = score(model, blocks, batch_size=4)
    assert score(model, blocks, options, lambda event: None) == score(model, blocks, config=options) == expected


def test_a_trainer_without_validation_blocks_says_so_when_it_is_to_evaluate(new_job):
    with pytest.raises(ValueError, match="no validation blocks"):
        create_trainer(new_job(validation=None)).evaluate()
