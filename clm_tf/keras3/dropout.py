"""Dropout whose masks follow from the seed of a step and the place: a checkpoint holds no random state."""

from typing import Any

import numpy as np
import tensorflow as tf


def seed_of(seed: int, *place: int) -> int:
    """The seed of a place in the model: of a layer, and of one of its dropouts."""
    return int(np.random.SeedSequence([seed, *place]).generate_state(1, np.uint32)[0] >> 1)


def drop(inputs: Any, rate: float, seed: int, batch: Any) -> Any:
    """Set a share of the inputs to 0, and scale the rest so that the mean stays.

    `batch` is a number for each batch, an int64 scalar, or None outside of training, where nothing is dropped.
    """
    if batch is None or not rate:
        return inputs
    return tf.nn.experimental.stateless_dropout(
        inputs, rate, seed=tf.stack([tf.constant(seed, tf.int64), batch]), rng_alg="philox"
    )
