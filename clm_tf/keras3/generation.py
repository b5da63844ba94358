"""Continues a prompt with a decoder, from a cache of keys and values."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from clm_core.backend import GenerationJob
from clm_core.sampling import choose
from clm_tf.keras3.decoder import Decoder
from clm_tf.keras3.modeling import load, precision_of


def generate(job: GenerationJob) -> list[int]:
    """The ids that follow the prompt, the end-of-sequence token included where it was reached."""
    with precision_of(job.config):
        return list(_continued(load(job.model), job))


def _continued(model: Decoder, job: GenerationJob) -> Iterator[int]:
    random = np.random.default_rng(job.config.seed)
    cache: Any = model.empty_cache(1, len(job.prompt) + job.config.max_new_tokens)

    @tf.function(reduce_retracing=True)
    def extend(ids: tf.Tensor, at: tf.Tensor, cache: Any) -> tuple[tf.Tensor, Any]:
        hidden, cache = model.hidden(ids, cache, at)
        return model.logits(hidden[:, -1])[0], cache

    text, ids, at = list(job.prompt), list(job.prompt), 0
    for _ in range(job.config.max_new_tokens):
        if at == model.layout.afresh_beyond:
            ids, at = text, 0
        logits, cache = extend(tf.constant([ids], tf.int32), tf.constant(at), cache)
        at += len(ids)
        ids = [choose(logits.numpy(), job.config, random)]
        text = text + ids
        yield ids[0]
        if ids[0] in job.eos_token_ids:
            return
