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
        if any(layout.expert_layers[index : index + 1]):
            self.feedforward = Experts(layout, name="feedforward")
        else:
            self.feedforward = FeedForward(layout, layout.inner, name="feedforward")
        for part in NORMS:
            setattr(self, part, Norm(layout, (layout.width,), name=part) if part in layout.names else _as_it_is)
        self.built = True

    def call(self, inputs: Any, context: Context, cache: Cache | None = None) -> tuple[Any, Cache | None]:
        """The outputs, of the shape of the inputs, and the cache; the arguments are those of `Attention`."""
        match self._layout.residual:
            case "parallel":
                normed = self.attention_norm(inputs)
                taken, cache = self._attend(normed, context, cache)
                own = self.feedforward_norm(inputs) if "feedforward_norm" in self._layout.names else normed
                both = taken + self._feed(own, context)
                return inputs + drop(both, self._layout.sum_dropout, self._seeds[1], context.batch), cache
            case "after":
                taken, cache = self._attend(inputs, context, cache)
                outputs = self.attention_norm(inputs + taken)
                return self.feedforward_norm(outputs + self._feed(outputs, context)), cache
            case "normed":
                normed = self.attention_norm(inputs)
                taken, cache = self._attend(normed, context, cache)
                normed = self.feedforward_norm(normed + taken)
                return normed + self._feed(normed, context), cache
        taken, cache = self._attend(self.attention_norm(inputs), context, cache)
        outputs = inputs + self.attention_output_norm(taken)
        fed = self._feed(self.feedforward_norm(outputs), context)
        return outputs + self.feedforward_output_norm(fed), cache

    def _attend(self, inputs: Any, context: Context, cache: Cache | None) -> tuple[Any, Cache | None]:
        taken, cache = self.attention(inputs, context=context, cache=cache)
        return drop(
            taken, self._layout.residual_dropout, self._seeds[0], context.batch
        ) * self._layout.residual_scale, cache

    def _feed(self, inputs: Any, context: Context) -> Any:
        fed = self.feedforward(inputs)
        return drop(fed, self._layout.feedforward_dropout, self._seeds[1], context.batch) * self._layout.residual_scale


def _as_it_is(inputs: Any) -> Any:
    return inputs
