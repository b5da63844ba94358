"""Losses from what the output layer gets, in chunks."""

import numpy as np
import pytest
import tensorflow as tf

from clm_tf.losses import Output, sums_in_chunks, token_losses

IGNORED = -100


@pytest.mark.parametrize(
    ("vocabulary", "tokens", "chunks"),
    [(50_257, 1_000, [250] * 4), (256_000, 130, [65] * 2), (2_000_000, 40, [14] * 3), (7, 0, [0])],
)
def test_the_logits_of_a_chunk_have_64_mib_at_most_unless_it_is_short(vocabulary, tokens, chunks):
    seen = []

    def logits(hidden):
        seen.append(len(hidden))
        return tf.zeros((len(hidden), 7))

    loss, _ = sums_in_chunks(tf.zeros((tokens, 3)), Output(logits, vocabulary), tf.zeros(tokens, tf.int64))
    np.testing.assert_allclose(loss, tokens * np.log(7), rtol=1e-6)
    assert seen == chunks


def test_a_target_that_does_not_count_has_no_loss_and_is_never_ranked_first():
    losses, hits = token_losses(tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), tf.constant([0, 0, IGNORED]))
    np.testing.assert_allclose(losses, [np.log1p(np.exp(-1)), 1 + np.log1p(np.exp(-1)), 0.0], rtol=1e-6)
    assert hits.numpy().tolist() == [True, False, False]
