"""Causal self-attention: grouped heads, rotary positions, windows, and a cache of keys and values."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from clm_tf.keras3.dropout import drop, seed_of
from clm_tf.keras3.layout import Layout
from clm_tf.keras3.norm import Norm
from clm_tf.keras3.projection import dense, project
from clm_tf.keras3.rope import Rope

MASKED = -1e30
"""The score of a key that is not attended to: finite, so that no row of bfloat16 becomes NaN."""

Cache = tuple[Any, Any]
"""Keys and values, each of shape (rows, length, key_value_heads, head_size)."""


@dataclass(frozen=True)
class Context:
    """What the layers are given besides their inputs."""

    rotation: tuple[Any, Any] | None
    """The cosines and sines of the positions, (length, 1, pairs) each; None where nothing rotates."""
    allowed: Any
    """bool (length, keys): what attends to what."""
    bias: Any
    """(heads, 1, keys), added to the scores; None for nothing."""
    at: Any
    """The position of the first token, int32."""
    batch: Any
    """What dropout is drawn from in training, a number for each batch, int64; None outside of training."""


class Attention(keras.layers.Layer):
    """The attention of one layer; its projections are one, or one each for queries, keys and values."""

    def __init__(self, layout: Layout, index: int, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._layout, self._scale, self._seed = layout, layout.scales[index], seed_of(seed, index, 0)
        queries, others = layout.heads * layout.head_size, layout.key_value_heads * layout.head_size
        sizes = {"query": queries, "key": others, "value": others, "query_key_value": queries + 2 * others}
        for part in (part for part in sizes if part in layout.names):  # In one order, which optimizers' states rest on.
            setattr(self, part, dense(layout.width, sizes[part], layout.attention_bias, part))
        self.output_projection = dense(queries, layout.width, layout.output_bias, "output")
        for part, heads in (("query_norm", layout.heads), ("key_norm", layout.key_value_heads)):
            if part in layout.names:
                setattr(self, part, Norm(layout, _shape_of_norm(layout, heads), name=part))
        self.built = True

    def call(self, inputs: Any, context: Context, cache: Cache | None = None) -> tuple[Any, Cache | None]:
        """What each token takes from those that it attends to, of the shape of the inputs; and the cache, extended.

        The inputs are (rows, length, width). The cache has the keys and values of earlier tokens, if there are any.
        """
        layout = self._layout
        queries, keys, values = self._project(inputs, context.batch)
        if context.rotation is not None:
            queries, keys = (rotate(each, context.rotation, layout.interleaved) for each in (queries, keys))
        if cache is not None:
            keys, values = cache = tuple(
                ops.slice_update(kept, (0, context.at, 0, 0), new)
                for kept, new in zip(cache, (keys, values), strict=True)
            )
        rows, length = ops.shape(inputs)[0], ops.shape(inputs)[1]
        groups = layout.heads // layout.key_value_heads
        queries = ops.reshape(queries, (rows, length, layout.key_value_heads, groups, layout.head_size))
        scores = ops.cast(ops.einsum("bqkgd,bskd->bkgqs", queries * self._scale, keys), "float32")
        if layout.score_cap:
            scores = ops.tanh(scores / layout.score_cap) * layout.score_cap
        if context.bias is not None:
            scores = scores + ops.reshape(context.bias, (layout.key_value_heads, groups, 1, -1))
        shares = ops.softmax(ops.where(context.allowed, scores, MASKED), -1)
        shares = drop(ops.cast(shares, values.dtype), layout.attention_dropout, self._seed, context.batch)
        taken = ops.einsum("bkgqs,bskd->bqkgd", shares, values)
        taken = ops.reshape(taken, (rows, length, layout.heads * layout.head_size))
        return project(self.output_projection, taken, context.batch), cache

    def _project(self, inputs: Any, batch: Any) -> tuple[Any, Any, Any]:
        """Queries, keys and values, each (rows, length, heads, head_size)."""
        layout = self._layout
        if "query_key_value" in layout.names:
            queries, keys, values = split(project(self.query_key_value, inputs, batch), layout)
        else:
            queries, keys, values = (project(part, inputs, batch) for part in (self.query, self.key, self.value))
        if layout.query_key_norm == "width" and "query_norm" in layout.names:
            queries, keys = self.query_norm(queries), self.key_norm(keys)
        if layout.clip is not None:
            queries, keys, values = (ops.clip(each, -layout.clip, layout.clip) for each in (queries, keys, values))
        queries = _in_heads(queries, layout.heads, layout)
        keys, values = (_in_heads(each, layout.key_value_heads, layout) for each in (keys, values))
        if layout.query_key_norm != "width" and "query_norm" in layout.names:
            queries, keys = self.query_norm(queries), self.key_norm(keys)
        return queries, keys, values


def rotation(rope: Rope, positions: Any, length: Any) -> tuple[Any, Any]:
    """Cosines and sines, (length, 1, pairs) each."""
    frequencies = ops.convert_to_tensor(rope.frequencies, "float32")
    if rope.beyond:
        longer = ops.convert_to_tensor(rope.beyond, "float32")
        frequencies = ops.where(length > rope.length, longer, frequencies)
    if rope.stretch:
        frequencies = _stretched(rope, length)
    angles = ops.cast(positions, "float32")[:, None, None] * frequencies
    return ops.cos(angles) * rope.scale, ops.sin(angles) * rope.scale


def rotate(heads: Any, rotation: tuple[Any, Any], interleaved: bool) -> Any:
    """Rotate pairs of dimensions of (rows, length, heads, head_size); those beyond the rotation stay."""
    cosines, sines = (ops.cast(each, heads.dtype) for each in rotation)
    size = 2 * cosines.shape[-1]
    turning, rest = heads[..., :size], heads[..., size:]
    if interleaved:
        one, other = turning[..., ::2], turning[..., 1::2]
    else:
        one, other = turning[..., : size // 2], turning[..., size // 2 :]
    one, other = one * cosines - other * sines, other * cosines + one * sines
    if interleaved:
        turned = ops.reshape(ops.stack([one, other], -1), ops.shape(turning))
    else:
        turned = ops.concatenate([one, other], -1)
    return ops.concatenate([turned, rest], -1) if rest.shape[-1] else turned


def split(projected: Any, layout: Layout) -> tuple[Any, Any, Any]:
    """Queries, keys and values out of one projection, each (rows, length, heads * head_size) or in heads."""
    rows, length = ops.shape(projected)[0], ops.shape(projected)[1]
    heads, others, size = layout.heads, layout.key_value_heads, layout.head_size
    if layout.query_key_value == "joined":
        return tuple(ops.split(projected, [heads * size, (heads + others) * size], -1))
    if layout.query_key_value == "grouped":
        groups = heads // others
        parts = ops.reshape(projected, (rows, length, others, groups + 2, size))
        return parts[..., :groups, :], parts[..., groups, :], parts[..., groups + 1, :]
    parts = ops.reshape(projected, (rows, length, 4, 3, heads // 4 * size))
    return parts[..., 0, :], parts[..., 2, :], parts[..., 1, :]


def _in_heads(projected: Any, heads: int, layout: Layout) -> Any:
    shape = ops.shape(projected)
    return ops.reshape(projected, (shape[0], shape[1], heads, layout.head_size))


def _shape_of_norm(layout: Layout, heads: int) -> tuple[int, ...]:
    match layout.query_key_norm:
        case "width":
            return (heads * layout.head_size,)
        case "each_head":
            return (heads, layout.head_size)
    return (layout.head_size,)


def _stretched(rope: Rope, length: Any) -> Any:
    """The frequencies for a text of this length: theta grows with what is beyond the model's positions."""
    theta, factor = rope.stretch or (0.0, 0.0)
    size = rope.size
    longest = ops.cast(ops.maximum(length, rope.length), "float32")
    grown = theta * (factor * longest / rope.length - (factor - 1)) ** (size / (size - 2))
    return 1.0 / ops.power(grown, np.arange(0, size, 2, dtype=np.float32) / size)
