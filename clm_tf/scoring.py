"""Scores blocks with a TensorFlow model: likelihoods and hits, summed over tokens, whatever the batch size."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from transformers import TFPreTrainedModel

from clm_core.backend import Blocks, EvaluationJob, Logits, Report, Score
from clm_core.stopping import Stop
from clm_tf import modeling
from clm_tf.datasets import evaluation_dataset
from clm_tf.devices import strategy_of
from clm_tf.head import head_behind
from clm_tf.losses import sums_in_chunks, targets_of, token_losses
from clm_tf.sharing import shared_scorer
from clm_tf.together import Together, with_others
from clm_tf.tracing import traced


def score(model: TFPreTrainedModel, blocks: Blocks, batch_size: int = 8, report: Report = lambda event: None) -> Score:
    """Score blocks in inference mode, in the order on disk."""
    return scorer(model)(blocks, batch_size, report)


def score_together(job: EvaluationJob) -> Score:
    """The score of a job, which other processes have too."""
    with with_others(job.world), modeling.precision(job.config.bf16), strategy_of(job.world, job.stop).scope():
        Together(tf.distribute.get_strategy()).check_same(job.identity())
        return score(modeling.load(job.model), job.blocks, job.config.per_device_eval_batch_size, job.report)


def scorer(model: TFPreTrainedModel, *, stop: Stop | None = None) -> Callable[[Blocks, int, Report], Score]:
    """`score` for a model that is scored repeatedly and traced only once; all devices of its strategy take part.

    Several processes tell each other after each batch whether `stop` has been asked of one.
    """

    def sums(input_ids: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = model(input_ids, training=False, return_dict=True).logits
        if head := head_behind(logits):
            return sums_in_chunks(head.hidden, head.output(), targets_of(labels))
        losses, hits = token_losses(tf.cast(logits, tf.float32), targets_of(labels))
        return tf.reduce_sum(tf.cast(losses, tf.float64)), tf.math.count_nonzero(hits)

    return shared_scorer(traced(model, sums), model.distribute_strategy, stop)


def logits(model: TFPreTrainedModel, blocks: Blocks, batch_size: int = 8) -> Logits:
    """What a model predicts after each token of each block, in inference mode."""
    batches = (batch["input_ids"] for batch in evaluation_dataset(blocks, batch_size))
    found = [model(input_ids, training=False, return_dict=True).logits for input_ids in batches]
    return np.concatenate([tf.cast(part, tf.float32).numpy() for part in found])
