"""One layer of a decoder: attention and feed-forward, their norms, and how their outputs are added."""

from typing import Any

import keras

from clm_tf.keras3.attention import Attention, Cache, Context
from clm_tf.keras3.dropout import drop, seed_of
from clm_tf.keras3.experts import Experts
from clm_tf.keras3.feedforward import FeedForward
from clm_tf.keras3.layout import Layout
from clm_tf.keras3.norm import Norm

NORMS = ("attention_norm", "attention_output_norm", "feedforward_norm", "feedforward_output_norm")


class Block(keras.layers.Layer):
    """A layer; `layout.residual` says how the outputs of its two branches are added to what comes in."""

    def __init__(self, layout: Layout, index: int, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._layout, self._seeds = layout, (seed_of(seed, index, 1), seed_of(seed, index, 2))
        self.attention = Attention(layout, index, seed, name="attention")
        self.has_experts = bool(layout.expert_layers) and layout.expert_layers[index]
        if self.has_experts:
            self.feedforward = Experts(layout, name="feedforward")
        else:
            self.feedforward = FeedForward(layout, layout.inner, name="feedforward")
        for part in NORMS:
            setattr(self, part, Norm(layout, (layout.width,), name=part) if part in layout.names else _as_it_is)
        self.built = True

    def call(self, inputs: Any, context: Context, cache: Cache | None = None) -> tuple[Any, Cache | None, Any]:
        """The outputs, of the shape of the inputs, the cache, and how the experts are used; None without experts.

        The arguments are those of `Attention`.
        """
        match self._layout.residual:
            case "parallel":
                normed = self.attention_norm(inputs)
                taken, cache = self._attend(normed, context, cache)
                own = self.feedforward_norm(inputs) if "feedforward_norm" in self._layout.names else normed
                fed, use = self._feed(own, context)
                both = drop(taken + fed, self._layout.sum_dropout, self._seeds[1], context.batch)
                return inputs + both, cache, use
            case "after":
                taken, cache = self._attend(inputs, context, cache)
                outputs = self.attention_norm(inputs + taken)
                fed, use = self._feed(outputs, context)
                return self.feedforward_norm(outputs + fed), cache, use
            case "normed":
                normed = self.attention_norm(inputs)
                taken, cache = self._attend(normed, context, cache)
                normed = self.feedforward_norm(normed + taken)
                fed, use = self._feed(normed, context)
                return normed + fed, cache, use
        taken, cache = self._attend(self.attention_norm(inputs), context, cache)
        outputs = inputs + self.attention_output_norm(taken)
        fed, use = self._feed(self.feedforward_norm(outputs), context)
        return outputs + self.feedforward_output_norm(fed), cache, use

    def _attend(self, inputs: Any, context: Context, cache: Cache | None) -> tuple[Any, Cache | None]:
        taken, cache = self.attention(inputs, context=context, cache=cache)
        return drop(
            taken, self._layout.residual_dropout, self._seeds[0], context.batch
        ) * self._layout.residual_scale, cache

    def _feed(self, inputs: Any, context: Context) -> tuple[Any, Any]:
        fed = self.feedforward(inputs, batch=context.batch)
        fed, use = fed if self.has_experts else (fed, None)
        fed = drop(fed, self._layout.feedforward_dropout, self._seeds[1], context.batch)
        return fed * self._layout.residual_scale, use


def _as_it_is(inputs: Any) -> Any:
    return inputs
