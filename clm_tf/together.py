"""What several processes tell each other through the collectives of their strategy, for either Keras."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from clm_core.backend import ALONE, Score, World, check_same
from clm_core.errors import LostProcessError
from clm_core.stopping import Stop

PARTING = 2.0
"""Seconds that a process stays for the others, which have sent all of theirs, but may not have received all."""


LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)
"""What TensorFlow raises where a process does not answer any more."""


@contextmanager
def with_others(world: World) -> Iterator[None]:
    """Train together with other processes, if there are any.

    Raises:
        LostProcessError: one of them has ended.
    """
    try:
        yield
    except LOST as error:
        if world.is_one_process:
            raise
        raise LostProcessError("another of the processes that train ended") from error


class Together:
    """The processes of a strategy. Each has to call the same methods in the same order; one alone need not wait."""

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self.strategy = strategy
        self.world = _world(strategy)
        self._gather = tf.function(self._gathered, reduce_retracing=True)

    def meet(self) -> None:
        """Wait for all."""
        self._of_all(np.zeros(1, np.int64))

    def part(self) -> None:
        """Let the others fetch what this process has sent them last, before it ends."""
        if not self.world.is_one_process:
            time.sleep(PARTING)

    def check_same(self, identity: Mapping[str, str]) -> None:
        """Make sure that what is to be the same for all processes is.

        Raises:
            OptionError: it is not; all processes raise it.
        """
        text = np.frombuffer(json.dumps(dict(identity)).encode(), np.uint8).astype(np.int64)
        lengths = self._of_all(np.array([len(text)]))[:, 0]
        texts = self._of_all(np.pad(text, (0, lengths.max() - len(text))))
        check_same(
            [json.loads(row[:length].astype(np.uint8).tobytes()) for row, length in zip(texts, lengths, strict=True)]
        )

    def agree(self, stop: Stop) -> None:
        """Tell each process what any has been asked."""
        stop.agree(int(self._of_all(np.array([stop.wish])).max()))

    def total(self, score: Score) -> Score:
        """The sum of the scores of all processes."""
        loss = self._of_all(np.array([score.loss_sum])).sum()
        correct, tokens = self._of_all(np.array([score.correct, score.tokens])).sum(0)
        return Score(loss_sum=float(loss), correct=int(correct), tokens=int(tokens))

    def _of_all(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Of each process: (processes, length), where each gives as many."""
        if self.world.is_one_process:
            return values[None]
        of_devices = self.strategy.experimental_local_results(self._gather(tf.constant(values)))[0]
        return np.asarray(of_devices)[:: self.world.local]

    def _gathered(self, values: tf.Tensor) -> Any:
        def of_device() -> tf.Tensor:
            return tf.distribute.get_replica_context().all_gather(values[None], axis=0)

        return self.strategy.run(of_device)


def _world(strategy: tf.distribute.Strategy) -> World:
    if strategy.num_replicas_in_sync == 1:
        return ALONE
    local = len(strategy.extended.worker_devices)
    number = 0 if strategy.cluster_resolver is None else strategy.extended._id_in_cluster
    return World(rank=number * local, size=strategy.num_replicas_in_sync, local=local)
