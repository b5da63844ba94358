"""Dense layers and tables, built; and what LoRA adds to the outputs of a dense layer that has an adapter."""

from typing import Any

import keras
from keras import ops

from clm_tf.keras3.dropout import drop


class LowRank(keras.layers.Layer):
    """What an adapter adds to the outputs of a dense layer: its inputs times two matrices of rank r, scaled.

    Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021). The sum of the kernel and the product is
    never computed, nor is a gradient of its size.
    """

    def __init__(self, inputs: int, outputs: int, r: int, *, scale: float, dropout: float, seed: int) -> None:
        super().__init__(name="adapter")
        self._scale, self._dropout, self._seed = scale, dropout, seed
        self.a = self.add_weight(name="lora_A", shape=(inputs, r), initializer="zeros")
        self.b = self.add_weight(name="lora_B", shape=(r, outputs), initializer="zeros")
        self.built = True

    def call(self, inputs: Any, batch: Any = None) -> Any:
        """Of the shape of the dense layer's outputs; in training, inputs are dropped as `batch` says."""
        inputs = drop(inputs, self._dropout, self._seed, batch)
        return ops.matmul(ops.matmul(inputs, self.a), self.b) * self._scale


def dense(inputs: int, outputs: int, bias: bool, name: str) -> keras.layers.Dense:
    """A projection with its variables, which are filled later."""
    layer = keras.layers.Dense(outputs, use_bias=bias, kernel_initializer="zeros", name=name)
    layer.build((None, None, inputs))
    return layer


def embedding(rows: int, width: int, name: str) -> keras.layers.Embedding:
    """A table with its variable, which is filled later."""
    layer = keras.layers.Embedding(rows, width, embeddings_initializer="zeros", name=name)
    layer.build((None, None))
    return layer


def adapter_of(layer: Any) -> LowRank | None:
    """What `adapt` has put beside a dense layer."""
    found: LowRank | None = vars(layer).get("adapter")
    return found


def adapt(layer: keras.layers.Dense, r: int, *, scale: float, dropout: float, seed: int) -> None:
    """Put an adapter of zeros beside a dense layer, for which `project` has to be used from now on."""
    inputs, outputs = layer._kernel.shape
    layer._tracker.unlock()  # As Keras' own `enable_lora` does.
    layer.adapter = LowRank(inputs, outputs, r, scale=scale, dropout=dropout, seed=seed)
    layer._tracker.lock()


def project(layer: keras.layers.Dense, inputs: Any, batch: Any) -> Any:
    """The outputs of a dense layer, with what its adapter adds, if it has one; `batch` is as in `drop`."""
    adapter = adapter_of(layer)
    return layer(inputs) if adapter is None else layer(inputs) + adapter(inputs, batch=batch)
