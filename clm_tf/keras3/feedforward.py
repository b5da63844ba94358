"""The feed-forward branch of a layer: with a gate or without, fused or not."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from clm_tf.keras3.attention import dense
from clm_tf.keras3.layout import Layout


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

    def call(self, inputs: Any) -> Any:
        """Of the shape of the inputs."""
        names = self._layout.names
        if "gate_up" in names:
            gate, up = ops.split(self.gate_up(inputs), 2, -1)
            return self.down(self._activation(gate) * up)
        if "gate" in names:
            return self.down(self._activation(self.gate(inputs)) * self.up(inputs))
        return self.down(self._activation(self.up(inputs)))
