"""Dense layers of transformers' classes, and what LoRA adds to their outputs where they have an adapter."""

from types import MethodType
from typing import Any

import tensorflow as tf
import tf_keras as keras
from transformers.modeling_tf_utils import TFConv1D

DENSE = (keras.layers.Dense, TFConv1D)


class LowRank(keras.layers.Layer):
    """What an adapter adds to the outputs of a dense layer: its inputs times two matrices of rank r, scaled.

    Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021). The sum of the kernel and the product is
    never computed, nor is a gradient of its size.
    """

    def __init__(self, kernel: tf.Variable, r: int, *, scale: float, dropout: float) -> None:
        """`kernel` is that of the dense layer; the variables are named like it, so that optimizers know their layer."""
        super().__init__(name="adapter")
        inputs, outputs = kernel.shape
        layer = kernel.name.rpartition("/")[0]
        self._scale = scale
        self.dropout = keras.layers.Dropout(dropout) if dropout else None
        self.a = self.add_weight(f"{layer}/lora_A", (inputs, r), initializer="zeros")
        self.b = self.add_weight(f"{layer}/lora_B", (r, outputs), initializer="zeros")
        self.built = True

    def call(self, inputs: tf.Tensor, training: Any = None) -> tf.Tensor:
        """Of the shape of the dense layer's outputs; Keras says whether the model is in training."""
        if self.dropout is not None:
            inputs = self.dropout(inputs, training=training)
        return tf.tensordot(tf.tensordot(inputs, self.a, 1), self.b, 1) * self._scale


def kernel_of(layer: keras.layers.Layer) -> tf.Variable:
    """The matrix of a dense layer, (inputs, outputs)."""
    return layer.weight if isinstance(layer, TFConv1D) else layer.kernel


def adapter_of(layer: keras.layers.Layer) -> LowRank | None:
    """What `adapt` has put beside a dense layer."""
    found: LowRank | None = vars(layer).get("adapter")
    return found


def adapt(layer: keras.layers.Layer, r: int, *, scale: float, dropout: float) -> None:
    """Put an adapter of zeros beside a dense layer, whose outputs have what it adds from now on."""
    layer.adapter = LowRank(kernel_of(layer), r, scale=scale, dropout=dropout)
    # It comes before the activation, which the layer of some classes has in itself.
    activation, layer.activation = getattr(layer, "activation", None), None
    call = type(layer).call

    def adapted(self: keras.layers.Layer, inputs: tf.Tensor) -> tf.Tensor:
        outputs = call(self, inputs) + self.adapter(inputs)
        return outputs if activation is None else activation(outputs)

    layer.call = MethodType(adapted, layer)  # A plain function could not be exported.
