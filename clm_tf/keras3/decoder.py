"""The decoder: one Keras model for every `Layout`, whose variables are the tensors of a PyTorch checkpoint."""

import contextlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from clm_core.backend import Model
from clm_core.errors import OptionError
from clm_tf.keras3.adapters import attach, described_by, fields_of
from clm_tf.keras3.attention import Cache, Context, rotation
from clm_tf.keras3.block import Block
from clm_tf.keras3.dropout import drop, seed_of
from clm_tf.keras3.families import layout_of_fields
from clm_tf.keras3.layout import Layout
from clm_tf.keras3.norm import Norm
from clm_tf.keras3.projection import adapter_of, dense, embedding, project
from clm_tf.losses import Output, sums_in_chunks, targets_of

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16", "bfloat16", "float16")
"""The dtype policies of Keras in which it computes."""

LORA_LAYERS = ("query", "value", "query_key_value")
"""The layers that get LoRA where none are named."""


@keras.saving.register_keras_serializable("clm")
class Decoder(keras.Model):
    """A causal language model: token ids of shape (rows, length) to float32 logits (rows, length, vocabulary).

    Its weights are zeros until they are filled: `clm_tf.keras3.load` does it, and `keras.saving.load_model`.

    Args:
        fields: all fields of a transformers configuration, as `families.fields_of` returns them.
        seed: of the dropout masks, which follow from it, the place, and the number of the batch, or what `StepSeeds`
            sets in its stead.
        recompute: whether the backward pass computes the activations of a layer again, to save memory.
        adapter: the fields of a `clm_core.adapters.Adapter`, which is trained while all else stays.

    Raises:
        ModelError: there is no layout for such a model.
        OptionError: the dtype policy is none of `POLICIES`, or the adapter is not for this model.
    """

    def __init__(
        self,
        fields: Mapping[str, Any],
        seed: int = 0,
        recompute: bool = False,
        adapter: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        with _policy(self.dtype_policy):
            self._build(fields, seed, recompute)
            if adapter is not None:
                attach(self, described_by(self, adapter))

    def _build(self, fields: Mapping[str, Any], seed: int, recompute: bool) -> None:
        self._fields = json.dumps(dict(fields))  # As text, since Keras would track a dict as a part of the model.
        self.seed, self.recompute = seed, recompute
        self.layout = layout = layout_of_fields(fields)
        narrow = layout.embedding_width or layout.width
        self.embeddings = embedding(layout.vocabulary, narrow, "embeddings")
        if "projection_in" in layout.names:
            self.projection_in = dense(narrow, layout.width, False, "projection_in")
            self.projection_out = dense(layout.width, narrow, False, "projection_out")
        if "positions" in layout.names:
            rows = layout.learned_positions + layout.first_position
            self.positions = embedding(rows, layout.width, "positions")
        if "embedding_norm" in layout.names:
            self.embedding_norm = Norm(layout, (layout.width,), name="embedding_norm")
        self.generation_config: Any = None
        """How transformers generates with it, if its checkpoint says so."""
        self.adapted: Model | None = None
        """The adapter that it has, with its base."""
        self.blocks = [Block(layout, i, seed, name=f"block_{i}") for i in range(layout.layers)]
        if "final_norm" in layout.names:
            self.final_norm = Norm(layout, (layout.width,), name="final_norm")
        if not layout.tied:
            self.head = dense(narrow, layout.vocabulary, layout.head_bias, "head")
        elif layout.head_bias:
            self.head_bias = self.add_weight(name="bias", shape=(layout.vocabulary,), initializer="zeros")
        self.batches = self.add_weight(name="batches", shape=(), dtype="int64", initializer="zeros", trainable=False)
        """What the dropout of the next batch is drawn from; it counts up with each, from 0 or what `StepSeeds` sets."""
        self._seed = seed_of(seed, layout.layers, 0)
        if layout.balance_weight:
            self.auxiliary_loss = keras.metrics.Mean(name="auxiliary_loss")
        self.built = True

    @property
    def fields(self) -> dict[str, Any]:
        """All fields of the transformers configuration."""
        found: dict[str, Any] = json.loads(self._fields)
        return found

    @property
    def configuration(self) -> Any:
        """The `transformers.PretrainedConfig`."""
        from transformers import CONFIG_MAPPING

        return CONFIG_MAPPING[self.layout.model_type].from_dict(self.fields)

    def call(self, inputs: Any, training: bool | None = None, head: bool = True) -> Any:
        """The logits after each token; without the head, what it gets."""
        batch = self._next_batch() if training else None
        hidden, _ = self.hidden(inputs, batch=batch)
        return self.logits(hidden, batch) if head else hidden

    def output(self) -> Output | None:
        """How the logits follow from hidden states; None in a training whose head has an adapter, with its dropout."""
        if not self.layout.tied and adapter_of(self.head):
            return None
        layers = [self.embeddings] if self.layout.tied else [self.head]
        parameters = [variable for layer in layers for variable in layer.trainable_variables]
        if self.layout.tied and self.layout.head_bias and self.head_bias.trainable:
            parameters.append(self.head_bias)
        return Output(self.logits, self.layout.vocabulary, [variable.value for variable in parameters])

    def hidden(
        self, ids: Any, cache: list[Cache] | None = None, at: Any = 0, batch: Any = None
    ) -> tuple[Any, list[Cache] | None]:
        """What the head gets, (rows, length, its width), and the cache extended by these tokens, the first at `at`.

        `batch` is that of `Context`.
        """
        length = ops.shape(ids)[1]
        positions = ops.arange(length) + at
        keys = length if cache is None else cache[0][0].shape[1]
        outputs = self._embed(ids, positions, batch)
        contexts = self._contexts(positions, keys, at, batch)
        caches: list[Any] = []
        uses: list[Any] = []
        earlier: Sequence[Cache | None] = [None] * len(self.blocks) if cache is None else cache
        for block, context, own in zip(self.blocks, contexts, earlier, strict=True):
            if self.recompute and batch is not None:
                outputs, use = _recomputed(block, context)(outputs)
            else:
                outputs, own, use = block(outputs, context=context, cache=own)
            caches.append(own)
            uses += [use] if block.has_experts else []
        if batch is not None and uses and self.layout.balance_weight:
            self._add_imbalance(uses)
        if "final_norm" in self.layout.names:
            outputs = self.final_norm(outputs)
        if "projection_out" in self.layout.names:
            outputs = project(self.projection_out, outputs, batch)
        return outputs, None if cache is None else caches

    def logits(self, hidden: Any, batch: Any = None) -> Any:
        """Float32 logits of what `hidden` returns, or of a part of it."""
        layout = self.layout
        if layout.tied:
            scores = ops.matmul(hidden, ops.transpose(ops.cast(self.embeddings.embeddings, hidden.dtype)))
            if layout.head_bias:
                scores = scores + ops.cast(self.head_bias, scores.dtype)
        else:
            scores = project(self.head, hidden, batch)
        scores = ops.cast(scores, "float32") * layout.logit_scale
        return ops.tanh(scores / layout.logit_cap) * layout.logit_cap if layout.logit_cap else scores

    def score(self, ids: Any, labels: Any = None) -> tuple[Any, Any]:
        """The negative log likelihood of the tokens after the first, summed, float64; and how many were ranked first.

        With `labels`, of those whose label is not below 0. The logits are computed a part at a time, so that a large
        vocabulary needs no more memory.
        """
        hidden, _ = self.hidden(ids)
        targets = targets_of(ids if labels is None else labels)
        return sums_in_chunks(hidden, Output(self.logits, self.layout.vocabulary), targets)

    def empty_cache(self, rows: int, length: int) -> list[Cache]:
        """A cache for texts of up to `length` tokens."""
        shape = (rows, length, self.layout.key_value_heads, self.layout.head_size)
        return [(ops.zeros(shape, self.compute_dtype), ops.zeros(shape, self.compute_dtype)) for _ in self.blocks]

    def enable_lora(self, rank: int, target_layer_names: Collection[str] = LORA_LAYERS) -> None:
        """Have a training change nothing but matrices of this rank, which are added to those of the layers named.

        Enable it before `compile`. The names are those of the dense layers in a block: `query`, `key`, `value` or
        `query_key_value`, `output`, `gate`, `up` or `gate_up`, `down`; or `embeddings`, `positions` and `head`. Both
        `save` and `clm_tf.keras3.save` write the sums.

        Raises:
            OptionError: there is no layer of such a name, the rank is none, or there is an adapter already.
        """
        if self.adapted is not None:
            raise OptionError("enable_lora: the model has an adapter already")
        if rank < 1:
            raise OptionError(f"enable_lora: rank {rank} would add nothing: give 1 or more")
        if isinstance(target_layer_names, str):
            target_layer_names = (target_layer_names,)
        kinds = keras.layers.Dense | keras.layers.Embedding
        layers = [layer for layer in self._flatten_layers() if isinstance(layer, kinds)]
        names = {layer.name for layer in layers}
        unknown = sorted(set(target_layer_names) - names)
        if unknown and target_layer_names is not LORA_LAYERS:
            raise OptionError(f"enable_lora: there is no layer {unknown[0]}; it has {', '.join(sorted(names))}")
        chosen = [layer for layer in layers if layer.name in target_layer_names]
        for variable in self.trainable_variables:
            variable.trainable = False
        for layer in chosen:
            layer.enable_lora(rank)

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Export as Keras does; without a signature, for int32 token ids of any shape (rows, length).

        Raises:
            OptionError: the format is LiteRT, whose operations need a fixed shape, and there is no signature.
        """
        if format == "litert" and not input_signature:
            raise OptionError(
                "export: litert needs a fixed shape, such as for a row of 128 tokens "
                'input_signature=[keras.InputSpec(shape=(1, 128), dtype="int32")]'
            )
        signature = input_signature or [keras.InputSpec(shape=(None, None), dtype="int32", name="ids")]
        super().export(filepath, format=format, verbose=verbose, input_signature=signature, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """What Keras stores; transformers' configuration is in it."""
        own = {"fields": self.fields, "seed": self.seed, "recompute": self.recompute}
        own |= {"adapter": fields_of(self.adapted)}
        return {
            **super().get_config(),
            **own,
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }

    def _add_imbalance(self, uses: list[Any]) -> None:
        """Add to the loss what grows the more unevenly the routers use the experts, over all layers.

        Fedus et al., "Switch Transformers: Scaling to Trillion Parameter Models with Simple and Efficient Sparsity"
        (2021), equations (4) to (6).
        """
        chosen, shares = ops.unstack(ops.mean(ops.stack(uses), 0))
        added = self.layout.balance_weight * self.layout.experts * ops.sum(chosen * shares)
        self.add_loss(added)
        self.auxiliary_loss.update_state(added)

    def _next_batch(self) -> Any:
        batch = tf.identity(self.batches.value)
        self.batches.assign(batch + 1)
        return batch

    def _embed(self, ids: Any, positions: Any, batch: Any) -> Any:
        layout = self.layout
        outputs = self.embeddings(ids)
        if layout.pad is not None:
            outputs = ops.where(ops.equal(ids, layout.pad)[..., None], ops.stop_gradient(outputs), outputs)
        outputs = outputs * layout.embedding_scale
        if "projection_in" in layout.names:
            outputs = project(self.projection_in, outputs, batch)
        if "positions" in layout.names:
            # XLA takes the last row for a position that there is not, and a GPU takes zeros: neither says so.
            there = ops.less(positions, layout.learned_positions)[:, None]
            rows = self.positions(positions + layout.first_position)
            outputs = outputs + ops.where(there, rows, ops.cast(float("nan"), rows.dtype))
        if "embedding_norm" in layout.names:
            outputs = self.embedding_norm(outputs)
        return drop(outputs, layout.embedding_dropout, self._seed, batch)

    def _contexts(self, positions: Any, keys: Any, at: Any, batch: Any) -> list[Context]:
        """By layer; what several share is made once."""
        layout, length = self.layout, at + ops.shape(positions)[0]
        ages = positions[:, None] - ops.arange(keys)[None]
        masks = {
            window: ages >= 0 if window is None else (ages >= 0) & (ages < window) for window in set(layout.windows)
        }
        rotations = {each: rotation(each, positions, length) if each else None for each in set(layout.ropes)}
        bias = _bias(layout, keys) if layout.slopes else None
        return [
            Context(rotation=rotations[each], allowed=masks[window], bias=bias, at=at, batch=batch)
            for each, window in zip(layout.ropes, layout.windows, strict=True)
        ]


@contextlib.contextmanager
def _policy(policy: Any) -> Iterator[None]:
    """Build layers in this dtype policy, which need not be the one that Keras is set to."""
    if policy.name not in POLICIES:
        raise OptionError(f"dtype policy {policy.name}: a decoder computes in {', '.join(POLICIES)}")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _recomputed(block: Block, context: Context) -> Callable[[Any], tuple[Any, Any]]:
    """The block without a memory: what it needs for its gradient is computed again."""

    def compute(inputs: Any) -> Any:
        outputs, _, use = block(inputs, context=context)
        return (outputs, use) if block.has_experts else outputs

    recomputed = keras.remat(compute)
    return recomputed if block.has_experts else lambda inputs: (recomputed(inputs), None)


def _bias(layout: Layout, keys: Any) -> Any:
    """What is added to the scores of the keys, of shape (heads, 1, keys); `keys` is how many there are."""
    slopes = ops.convert_to_tensor(layout.slopes, "float32")[:, None, None]
    positions = ops.cast(ops.arange(keys), "float32")
    if layout.rounded_slopes is None:
        return slopes * positions
    product = ops.cast(slopes, "bfloat16") * ops.cast(positions, "bfloat16")
    return ops.cast(product, "float32") * layout.rounded_slopes
