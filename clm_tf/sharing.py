"""Scores blocks on all devices of a strategy, for either Keras: each takes a batch in turn; the score is the sum."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from clm_core.backend import Blocks, Report, Score, count_predicted, labels_at
from clm_core.scoring import NOTHING, score_in_batches
from clm_core.stopping import Stop
from clm_tf.together import Together

Sums = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""Of ids and labels, int64 (rows, length): the negative log likelihood of what counts, and the hits in it."""


def shared_scorer(
    sums: Sums, strategy: tf.distribute.Strategy, stop: Stop | None = None
) -> Callable[[Blocks, int, Report], Score]:
    """The function that scores blocks by `sums`, which is traced only once; it takes a batch size and a report.

    Several processes tell each other after each batch whether `stop` has been asked of one.
    """
    together = Together(strategy)
    world = together.world
    agree = partial(together.agree, stop) if stop and stop.together else lambda: None
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
