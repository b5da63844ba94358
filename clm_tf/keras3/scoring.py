"""Scores blocks with a decoder of Keras 3: likelihoods and hits, summed over tokens, whatever the batch size."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from clm_core.backend import Blocks, EvaluationJob, Logits, Report, Score
from clm_tf.devices import strategy_of
from clm_tf.keras3 import modeling
from clm_tf.keras3.decoder import Decoder
from clm_tf.sharing import shared_scorer


def score(model: Decoder, blocks: Blocks, batch_size: int = 8, report: Report = lambda event: None) -> Score:
    """Score blocks in inference mode, in the order on disk."""
    return scorer(model)(blocks, batch_size, report)


def score_together(job: EvaluationJob) -> Score:
    """The score of a job, on all of its devices."""
    with modeling.precision_of(job.config), strategy_of(job.world).scope():
        return score(modeling.load(job.model), job.blocks, job.config.per_device_eval_batch_size, job.report)


def scorer(model: Decoder) -> Callable[[Blocks, int, Report], Score]:
    """`score` for a model that is scored repeatedly and traced only once; all devices of its strategy take part."""
    return shared_scorer(model.score, model.distribute_strategy)


def logits(model: Decoder, blocks: Blocks, batch_size: int = 8) -> Logits:
    """What a model predicts after each token of each block, in inference mode."""
    parts = [blocks[start : start + batch_size].astype(np.int64) for start in range(0, len(blocks), batch_size)]
    return np.concatenate([model(tf.constant(part), training=False).numpy() for part in parts])
