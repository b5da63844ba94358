"""The feed-forward branch of a layer: with a gate or without, fused or not."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from clm_tf.keras3.layout import Layout
from clm_tf.keras3.projection import dense, project


def _gelu(inputs: Any) -> Any:
    return ops.gelu(inputs, approximate=False)


def _gelu_tanh(inputs: Any) -> Any:
    return ops.gelu(inputs, approximate=True)


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "gelu": _gelu,
    "gelu_fast": _gelu_tanh,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "quick_gelu": lambda inputs: inputs * ops.sigmoid(1.702 * inputs),
    "relu": ops.relu,
    "relu2": lambda inputs: ops.square(ops.relu(inputs)),
    "silu": ops.silu,
    "swish": ops.silu,
    "tanh": ops.tanh,
}
"""By transformers' name."""


class FeedForward(keras.layers.Layer):
    """Up to `inner` dimensions, an activation, and down again."""

    def __init__(self, layout: Layout, inner: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._layout, self._activation = layout, ACTIVATIONS[layout.activation]
        for part, size in {"gate": inner, "up": inner, "gate_up": 2 * inner}.items():
            if part in layout.names:
                setattr(self, part, dense(layout.width, size, layout.feedforward_bias, part))
        self.down = dense(inner, layout.width, layout.feedforward_bias, "down")
        self.built = True

    def call(self, inputs: Any, batch: Any = None) -> Any:
        """Of the shape of the inputs; `batch` is that of `Context`."""
        return project(self.down, self._activated(inputs, batch), batch)

    def _activated(self, inputs: Any, batch: Any) -> Any:
        names = self._layout.names
        if "gate_up" in names:
            gate, up = ops.split(project(self.gate_up, inputs, batch), 2, -1)
            return self._activation(gate) * up
        up = project(self.up, inputs, batch)
        return self._activation(project(self.gate, inputs, batch)) * up if "gate" in names else self._activation(up)
