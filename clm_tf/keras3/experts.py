"""The feed-forward branch of a mixture: a router chooses some experts for each token, and weights what they say."""

from typing import Any

import keras
from keras import ops

from clm_tf.keras3.feedforward import FeedForward
from clm_tf.keras3.layout import Layout
from clm_tf.keras3.projection import dense, project


class Experts(keras.layers.Layer):
    """Feed-forward branches, of which each token gets the `experts_chosen` that its router scores highest.

    All are computed for all tokens, and the others weighted with 0: the same graph for each batch, which XLA needs, at
    the cost of a model without a choice. So each expert has a gradient at each step, as in transformers 5, if only of
    zeros.
    """

    def __init__(self, layout: Layout, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._layout = layout
        self.router = dense(layout.width, layout.experts, False, "router")
        self.experts = [FeedForward(layout, layout.expert_inner, name=f"expert_{i}") for i in range(layout.experts)]
        if layout.shared_inner:
            self.shared = FeedForward(layout, layout.shared_inner, name="shared")
            self.shared_gate = dense(layout.width, 1, False, "shared_gate")
        self.built = True

    def call(self, inputs: Any, batch: Any = None) -> tuple[Any, Any]:
        """The outputs, of the shape of the inputs, (rows, length, width); and how the router uses the experts.

        The latter is float32 (2, experts): of the tokens, the share that has chosen an expert, and the mean of its
        share for each of them. Only the second has a gradient. `batch` is that of `Context`.
        """
        layout = self._layout
        shares = ops.softmax(ops.cast(project(self.router, inputs, batch), "float32"), -1)
        best, chosen = ops.top_k(shares, layout.experts_chosen)
        if layout.shares_normalized:
            best = best / ops.sum(best, -1, keepdims=True)
        chosen = ops.one_hot(chosen, layout.experts)
        weights = ops.cast(ops.sum(chosen * best[..., None], -2), inputs.dtype)
        outputs = sum(expert(inputs, batch=batch) * weights[..., i : i + 1] for i, expert in enumerate(self.experts))
        if layout.shared_inner:
            outputs = outputs + self.shared(inputs, batch=batch) * ops.sigmoid(project(self.shared_gate, inputs, batch))
        return outputs, ops.stack([ops.mean(ops.sum(chosen, -2), (0, 1)), ops.mean(shares, (0, 1))])
