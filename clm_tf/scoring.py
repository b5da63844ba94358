"""Scores blocks in an evaluation: likelihoods and hits, summed over tokens, whatever the batch size."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from transformers import TFPreTrainedModel

from clm_core.backend import Blocks, Logits, Report, Score
from clm_core.scoring import score_in_batches
from clm_tf.datasets import evaluation_dataset


def score(model: TFPreTrainedModel, blocks: Blocks, batch_size: int = 8, report: Report = lambda event: None) -> Score:
    """Score blocks in inference mode, in the order on disk."""
    return scorer(model)(blocks, batch_size, report)


def scorer(model: TFPreTrainedModel) -> Callable[[Blocks, int, Report], Score]:
    """`score` for a model that is scored repeatedly and traced only once."""

    @tf.function(input_signature=[tf.TensorSpec((None, None), tf.int64)])
    def sums(input_ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = tf.cast(model(input_ids, training=False, return_dict=True).logits[:, :-1], tf.float32)
        labels = input_ids[:, 1:]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        hits = tf.argmax(logits, axis=-1) == labels
        return tf.reduce_sum(tf.cast(losses, tf.float64)), tf.math.count_nonzero(hits)

    def score_batch(batch: Blocks) -> Score:
        loss_sum, correct = sums(tf.constant(batch.astype(np.int64)))
        rows, length = batch.shape
        return Score(loss_sum=float(loss_sum), correct=int(correct), tokens=rows * (length - 1))

    return lambda blocks, batch_size, report: score_in_batches(blocks, batch_size, report, score_batch)


def logits(model: TFPreTrainedModel, blocks: Blocks, batch_size: int = 8) -> Logits:
    """What a model predicts after each token of each block, in inference mode."""
    batches = (batch["input_ids"] for batch in evaluation_dataset(blocks, batch_size))
    found = [model(input_ids, training=False, return_dict=True).logits for input_ids in batches]
    return np.concatenate([tf.cast(part, tf.float32).numpy() for part in found])
