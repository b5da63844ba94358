"""The loss of tokens, for either Keras, from the input of the output layer, in chunks: no more logits exist at once.

The gradient of a chunk is made with its loss, so that its logits need not be kept: as in Hsu et al., "Liger Kernel:
Efficient Triton Kernels for LLM Training" (2024), section 3.2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import tensorflow as tf

from clm_core.backend import IGNORED
from clm_core.scoring import rows_of_chunk

Gradient: TypeAlias = tf.Tensor | tf.IndexedSlices | None
"""Of a variable; None if it is not used."""


@dataclass(frozen=True)
class Output:
    """How logits follow from hidden states."""

    of: Callable[[tf.Tensor], tf.Tensor]
    """The float32 logits (tokens, vocabulary) of hidden states (tokens, width)."""

    vocabulary: int

    parameters: Sequence[Any] = ()
    """Of what the logits follow from too, the variables or tensors whose gradients are wanted."""


def token_losses(logits: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The negative log likelihood of each target, 0 for one below 0; and whether it was ranked first.

    `logits` are float32 (..., vocabulary), `targets` of the shape before.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.nn.relu(targets), logits)
    return tf.where(targets < 0, 0.0, losses), tf.argmax(logits, -1, targets.dtype) == targets


def targets_of(labels: tf.Tensor) -> tf.Tensor:
    """For each token of some blocks the id that follows, or IGNORED at the end; (rows, length)."""
    return tf.pad(labels[:, 1:], [[0, 0], [0, 1]], constant_values=IGNORED)


def sums_in_chunks(hidden: tf.Tensor, output: Output, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The losses of the targets of hidden states (..., width), summed, float64; and how many were ranked first."""
    states, wanted = _cut(hidden, output, targets)

    def add(index: tf.Tensor, loss: tf.Tensor, hits: tf.Tensor) -> tuple[tf.Tensor, ...]:
        losses, found = token_losses(output.of(states[index]), wanted[index])
        return index + 1, loss + tf.reduce_sum(tf.cast(losses, tf.float64)), hits + tf.math.count_nonzero(found)

    start = (tf.constant(0), tf.constant(0.0, tf.float64), tf.constant(0, tf.int64))
    _, loss, hits = _while_there_are(states, add, start)
    return loss, hits


def gradients_in_chunks(
    hidden: tf.Tensor, output: Output, targets: tf.Tensor, tokens: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
    """The sum of the losses by `tokens`; and its gradients, those of the hidden states and of `output.parameters`.

    The arguments are those of `sums_in_chunks`.
    """
    states, wanted = _cut(hidden, output, targets)

    def add(index: tf.Tensor, loss: tf.Tensor, found: tf.Tensor, *sums: tf.Tensor) -> tuple[tf.Tensor, ...]:
        part = states[index]
        with tf.GradientTape() as tape:
            tape.watch([part, *output.parameters])
            losses, _ = token_losses(output.of(part), wanted[index])
            share = tf.reduce_sum(losses) / tokens
        of_part, *more = tape.gradient(share, [part, *output.parameters])
        found = tf.tensor_scatter_nd_update(found, index[None, None], of_part[None])
        totals = (total + tf.cast(gradient, tf.float32) for total, gradient in zip(sums, more, strict=True))
        return index + 1, loss + share, found, *totals

    nothing = [tf.zeros(parameter.shape) for parameter in output.parameters]
    start = (tf.constant(0), tf.constant(0.0), tf.zeros_like(states), *nothing)
    _, loss, found, *sums = _while_there_are(states, add, start)
    rows = tf.reshape(found, (-1, hidden.shape[-1]))[: tf.size(targets)]
    return loss, tf.reshape(rows, tf.shape(hidden)), sums


def sum_of(of_head: tf.Tensor | None, of_body: Gradient) -> Gradient:
    """The gradient of a variable, from what it has as a part of the head, and as a part of all else.

    A tied embedding gets a sparse gradient there, whose rows are added to the dense one of the head.
    """
    if of_head is None or of_body is None:
        return of_body if of_head is None else of_head
    if isinstance(of_body, tf.IndexedSlices):
        rows = tf.reshape(of_body.indices, (-1, 1))
        values = tf.reshape(of_body.values, (-1, *of_head.shape[1:]))
        return tf.tensor_scatter_nd_add(of_head, rows, tf.cast(values, of_head.dtype))
    return of_head + tf.cast(of_body, of_head.dtype)


def _cut(hidden: tf.Tensor, output: Output, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Hidden states (chunks, rows, width) and their targets (chunks, rows), as few chunks as there can be, of one size.

    The last may end with rows that do not count. XLA needs one size, and the others lose nothing by it.
    """
    width, count = hidden.shape[-1], tf.size(targets)
    most = rows_of_chunk(output.vocabulary)
    chunks = tf.maximum(-(-count // most), 1)
    each = -(-count // chunks)
    more = chunks * each - count
    states = tf.pad(tf.reshape(hidden, (-1, width)), [[0, more], [0, 0]])
    wanted = tf.pad(tf.reshape(targets, (-1,)), [[0, more]], constant_values=IGNORED)
    return tf.reshape(states, (chunks, each, width)), tf.reshape(wanted, (chunks, each))


def _while_there_are(chunks: tf.Tensor, add: Callable[..., Any], start: Sequence[Any]) -> Any:
    # One at a time: the logits of several would be in memory together.
    count = tf.shape(chunks)[0]
    return tf.while_loop(lambda index, *_: index < count, add, start, parallel_iterations=1)
