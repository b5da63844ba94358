"""Scores blocks in an evaluation: likelihoods and hits, summed over tokens, whatever the batch size."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from clm_core.backend import Blocks, Logits, Report, Score, count_predicted, labels_at
from clm_core.scoring import score_in_batches
from clm_tf.keras3.decoder import Decoder


def score(model: Decoder, blocks: Blocks, batch_size: int = 8, report: Report = lambda event: None) -> Score:
    """Score blocks in inference mode, in the order on disk."""
    return scorer(model)(blocks, batch_size, report)


def scorer(model: Decoder) -> Callable[[Blocks, int, Report], Score]:
    """`score` for a model that is scored repeatedly and traced only once."""
    sums = tf.function(model.score, input_signature=[tf.TensorSpec((None, None), tf.int64)] * 2)

    def score_batch(batch: Blocks) -> Score:
        loss_sum, correct = sums(tf.constant(batch.astype(np.int64)), tf.constant(labels_at(batch)))
        return Score(loss_sum=float(loss_sum), correct=int(correct), tokens=count_predicted(batch))

    return lambda blocks, batch_size, report: score_in_batches(blocks, batch_size, report, score_batch)


def logits(model: Decoder, blocks: Blocks, batch_size: int = 8) -> Logits:
    """What a model predicts after each token of each block, in inference mode."""
    parts = [blocks[start : start + batch_size].astype(np.int64) for start in range(0, len(blocks), batch_size)]
    return np.concatenate([model(tf.constant(part), training=False).numpy() for part in parts])
