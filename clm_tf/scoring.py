"""Scores blocks in an evaluation: likelihoods and hits, summed over tokens, whatever the batch size."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from transformers import TFPreTrainedModel

from clm_core.backend import IGNORED, Blocks, EvaluationJob, Logits, Report, Score, count_predicted, labels_at
from clm_core.scoring import NOTHING, score_in_batches
from clm_core.stopping import Stop
from clm_tf import modeling
from clm_tf.datasets import evaluation_dataset
from clm_tf.devices import strategy_of
from clm_tf.together import Together, with_others


def score(model: TFPreTrainedModel, blocks: Blocks, batch_size: int = 8, report: Report = lambda event: None) -> Score:
    """Score blocks in inference mode, in the order on disk."""
    return scorer(model)(blocks, batch_size, report)


def score_together(job: EvaluationJob) -> Score:
    """The score of a job, which other processes have too."""
    with with_others(job.world), modeling.precision(job.config.bf16), strategy_of(job.world).scope():
        Together(tf.distribute.get_strategy()).check_same(job.identity())
        return score(modeling.load(job.model), job.blocks, job.config.per_device_eval_batch_size, job.report)


def scorer(model: TFPreTrainedModel, *, stop: Stop | None = None) -> Callable[[Blocks, int, Report], Score]:
    """`score` for a model that is scored repeatedly and traced only once; all devices of its strategy take part.

    Several processes tell each other after each batch whether `stop` has been asked of one.
    """
    together = Together(model.distribute_strategy)
    strategy, world = together.strategy, together.world
    agree = partial(together.agree, stop) if stop and stop.together else lambda: None

    def sums(input_ids: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = tf.cast(model(input_ids, training=False, return_dict=True).logits[:, :-1], tf.float32)
        labels = labels[:, 1:]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.nn.relu(labels), logits)
        losses = tf.where(labels == IGNORED, 0.0, losses)
        hits = tf.argmax(logits, axis=-1) == labels
        return tf.reduce_sum(tf.cast(losses, tf.float64)), tf.math.count_nonzero(hits)

    on_one = tf.function(sums, input_signature=[tf.TensorSpec((None, None), tf.int64)] * 2)
    on_all = tf.function(lambda *parts: strategy.run(sums, args=parts), reduce_retracing=True)

    def shared(values: list[tf.Tensor]) -> Any:
        return strategy.experimental_distribute_values_from_function(
            lambda device: values[device.replica_id_in_sync_group - world.rank]
        )

    def found_in(parts: list[Blocks]) -> list[tuple[tf.Tensor, tf.Tensor]]:
        if world.local == 1:
            return [on_one(*_ids_and_labels(part)) for part in parts]
        nothing = [parts[0][:1]] * (world.local - len(parts))  # For devices without blocks.
        given = map(_ids_and_labels, (*parts, *nothing))
        of_devices = on_all(*(shared(list(values)) for values in zip(*given, strict=True)))
        return list(zip(*map(strategy.experimental_local_results, of_devices), strict=True))

    def score_batch(batch: Blocks, size: int) -> Score:
        parts = [batch[start : start + size] for start in range(0, len(batch), size)]
        scores = (
            Score(loss_sum=float(loss), correct=int(correct), tokens=count_predicted(part))
            for part, (loss, correct) in zip(parts, found_in(parts) if parts else [], strict=False)
        )
        return sum(scores, NOTHING)

    def score_all(blocks: Blocks, batch_size: int, report: Report) -> Score:
        found = score_in_batches(
            blocks, batch_size, report, lambda batch: score_batch(batch, batch_size), world=world, together=agree
        )
        return together.total(found)

    return score_all


def _ids_and_labels(blocks: Blocks) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.constant(blocks.astype(np.int64)), tf.constant(labels_at(blocks))


def logits(model: TFPreTrainedModel, blocks: Blocks, batch_size: int = 8) -> Logits:
    """What a model predicts after each token of each block, in inference mode."""
    batches = (batch["input_ids"] for batch in evaluation_dataset(blocks, batch_size))
    found = [model(input_ids, training=False, return_dict=True).logits for input_ids in batches]
    return np.concatenate([tf.cast(part, tf.float32).numpy() for part in found])
