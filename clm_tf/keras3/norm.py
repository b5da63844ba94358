"""Norms: root mean square or layer norm, in float32 whatever the model computes in."""

from typing import Any

import keras
from keras import ops

from clm_tf.keras3.layout import Layout


class Norm(keras.layers.Layer):
    """Divides by the deviation over the last axis; then come a weight and a bias, if the layout has them."""

    def __init__(self, layout: Layout, shape: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._layout = layout
        offset = layout.norm_offset
        one = keras.initializers.Constant(1.0 - offset)
        self.weight = self.bias = None
        if layout.norm_weight:
            self.weight = self.add_weight(name="weight", shape=shape, initializer=one, autocast=False)
        if layout.norm_bias:
            self.bias = self.add_weight(name="bias", shape=shape, initializer="zeros", autocast=False)
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The inputs, normalized; of their shape and type."""
        outputs = ops.cast(inputs, "float32")
        if self._layout.norm == "layer":
            outputs = outputs - ops.mean(outputs, -1, keepdims=True)
        outputs = outputs * ops.rsqrt(ops.mean(ops.square(outputs), -1, keepdims=True) + self._layout.epsilon)
        if self.weight is not None:
            outputs = outputs * (self._layout.norm_offset + ops.cast(self.weight, "float32"))
        if self.bias is not None:
            outputs = outputs + ops.cast(self.bias, "float32")
        return ops.cast(outputs, inputs.dtype)
