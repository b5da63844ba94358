"""What some of transformers' TensorFlow classes get wrong, put right in subclasses of the same names.

Each says what its parent, in transformers 4.57.6, does differently from the PyTorch class of that name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType
from typing import Any

import tensorflow as tf
import tf_keras as keras
import transformers
from transformers.activations_tf import get_tf_activation
from transformers.modeling_tf_outputs import TFCausalLMOutput, TFCausalLMOutputWithCrossAttentions
from transformers.modeling_tf_utils import (
    TFCausalLanguageModelingLoss,
    TFPreTrainedModel,
    TFSharedEmbeddings,
    unpack_inputs,
)
from transformers.models.roformer.modeling_tf_roformer import TFRoFormerEncoder

from clm_core.errors import ModelError
from clm_core.models.architectures import COUNT_FROM_PADDING


class TFMistralForCausalLM(transformers.TFMistralForCausalLM):
    """Its parent ignores `sliding_window`: a token sees all before it. `rope_scaling` and `head_dim` are rejected."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        if getattr(config, "rope_scaling", None):
            raise ModelError(
                f"rope_scaling {config.rope_scaling}: transformers' TensorFlow class for mistral does not support it; "
                "another backend may"
            )
        width = config.hidden_size // config.num_attention_heads
        if config.head_dim not in (None, width):
            raise ModelError(
                f"head_dim {config.head_dim}: transformers' TensorFlow class for mistral supports only heads of "
                f"hidden_size / num_attention_heads, {width}; another backend may support others"
            )
        super().__init__(config, *args, **kwargs)
        # As the other classes look tokens up, or `stop_at_padding` would not reach it.
        self.model.embed_tokens.call = lambda ids: tf.gather(self.model.embed_tokens.embeddings, ids)
        if config.sliding_window:
            prepare = self.model._prepare_decoder_attention_mask
            self.model._prepare_decoder_attention_mask = _within_window(prepare, config.sliding_window)

    def get_input_embeddings(self) -> keras.layers.Layer:
        """Its parent asks a layer that does not say."""
        return self.model.embed_tokens


class TFOPTForCausalLM(transformers.TFOPTForCausalLM):
    """Its parent draws new embeddings with a standard deviation of `pad_token_id`."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self.model.decoder.embed_tokens.initializer_range = config.init_std


class TFOpenAIGPTLMHeadModel(transformers.TFOpenAIGPTLMHeadModel):
    """Its parent ignores `afn`, and has the exact GELU where the PyTorch class has its approximation."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        for block in self.transformer.h:
            block.mlp.act = get_tf_activation("gelu_new" if config.afn == "gelu" else config.afn)


class _CountsFromPadding(TFPreTrainedModel):
    """Its parent numbers positions from 2 on, whatever `pad_token_id` is."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        getattr(self, self.base_model_prefix).embeddings.padding_idx = config.pad_token_id


class TFCamembertForCausalLM(_CountsFromPadding, transformers.TFCamembertForCausalLM):
    """See `_CountsFromPadding`."""


class TFRobertaForCausalLM(_CountsFromPadding, transformers.TFRobertaForCausalLM):
    """See `_CountsFromPadding`."""


class TFRobertaPreLayerNormForCausalLM(_CountsFromPadding, transformers.TFRobertaPreLayerNormForCausalLM):
    """See `_CountsFromPadding`."""


class TFXLMRobertaForCausalLM(_CountsFromPadding, transformers.TFXLMRobertaForCausalLM):
    """See `_CountsFromPadding`."""


class TFRoFormerForCausalLM(transformers.TFRoFormerForCausalLM):
    """Its parent ignores `is_decoder`: a token attends to later ones. It trains its sines, and cannot generate."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        if config.is_decoder:
            self.roformer.encoder = _CausalRoFormerEncoder(config, name="encoder")
        self.roformer.encoder.embed_positions.trainable = False

    def prepare_inputs_for_generation(self, inputs: tf.Tensor, **kwargs: Any) -> dict[str, Any]:
        """The whole text at each token; the class has no cache."""
        return {"input_ids": inputs}


class TFXGLMForCausalLM(transformers.TFXGLMForCausalLM):
    """Its parent has a separate output layer although `tie_word_embeddings` says that there is none.

    It also fails in `fit`, and draws its embeddings with a standard deviation of `pad_token_id`.
    """

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self.model.embed_tokens.initializer_range = config.init_std
        if config.tie_word_embeddings:
            self.lm_head = _TiedHead(self.model.embed_tokens, name="lm_head")

    @unpack_inputs
    def call(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        labels: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> TFCausalLMOutputWithCrossAttentions:
        """As in the parent, with a loss that needs no number of rows, which is unknown in `fit`."""
        outputs = super().call(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            return_dict=True,
            training=training,
        )
        if labels is not None:
            outputs.loss = self.hf_compute_loss(labels[:, 1:], outputs.logits[:, :-1])
        return outputs


class TFXLMWithLMHeadModel(transformers.TFXLMWithLMHeadModel, TFCausalLanguageModelingLoss):
    """Its parent has no loss, generates after a mask token, as an encoder does, and has no `sinusoidal_embeddings`."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        if config.sinusoidal_embeddings:
            raise ModelError(
                "sinusoidal_embeddings True: transformers' TensorFlow class for xlm does not support it; another "
                "backend may"
            )
        super().__init__(config, *args, **kwargs)

    @unpack_inputs
    def call(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        labels: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> TFCausalLMOutput:
        """Logits, float of shape (rows, length, vocabulary), and with labels, which may be the input_ids, the loss."""
        # No mask, because get_masks fails where a causal model is given one; but lengths, or it would count as
        # padding every token of the id that `pad_index` has.
        lengths = tf.repeat(tf.shape(input_ids)[1], tf.shape(input_ids)[0])
        logits = super().call(input_ids=input_ids, lengths=lengths, return_dict=True, training=training).logits
        loss = None if labels is None else self.hf_compute_loss(labels[:, 1:], logits[:, :-1])
        return TFCausalLMOutput(loss=loss, logits=logits)

    def prepare_inputs_for_generation(self, inputs: tf.Tensor, **kwargs: Any) -> dict[str, Any]:
        """The text as it is."""
        return {"input_ids": inputs}


class TFXLNetLMHeadModel(transformers.TFXLNetLMHeadModel):
    """Its parent's loss compares a label with the logits at the same position, and it generates by another stream."""

    def hf_compute_loss(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Of the token that follows."""
        return super().hf_compute_loss(labels[:, 1:], logits[:, :-1])

    def prepare_inputs_for_generation(self, inputs: tf.Tensor, **kwargs: Any) -> dict[str, Any]:
        """The text as it is."""
        return {"input_ids": inputs, "use_mems": False}


CLASSES: dict[str, type[TFPreTrainedModel]] = {
    "camembert": TFCamembertForCausalLM,
    "mistral": TFMistralForCausalLM,
    "openai-gpt": TFOpenAIGPTLMHeadModel,
    "opt": TFOPTForCausalLM,
    "roberta": TFRobertaForCausalLM,
    "roberta-prelayernorm": TFRobertaPreLayerNormForCausalLM,
    "roformer": TFRoFormerForCausalLM,
    "xglm": TFXGLMForCausalLM,
    "xlm": TFXLMWithLMHeadModel,
    "xlm-roberta": TFXLMRobertaForCausalLM,
    "xlnet": TFXLNetLMHeadModel,
}
"""By model type: the class to use instead of transformers' own."""

PADDED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("bert", "opt", "rembert", "roformer", "xglm", "xlm"), ("weight",)),
    **dict.fromkeys(COUNT_FROM_PADDING, ("weight", "position_embeddings")),
    "mistral": ("embeddings",),
}
"""By model type: the tables of the input embeddings that have a `padding_idx` in the PyTorch class."""


def stop_at_padding(model: TFPreTrainedModel) -> None:
    """Give the row of the padding token no gradient where it is looked up, as `padding_idx` does in PyTorch.

    The row keeps the gradient that it has as an output, if the output layer is the embeddings. Other parents ignore
    the padding token in a text: its row would be trained, and the losses would leave those of PyTorch.
    """
    kind = model.config.model_type
    row = model.config.pad_index if kind == "xlm" else model.config.pad_token_id
    if kind not in PADDED or row is None:
        return
    layer = model.get_input_embeddings()
    method = "_embedding" if isinstance(layer, TFSharedEmbeddings) else "call"
    setattr(layer, method, _stopping(getattr(layer, method), layer, PADDED[kind], row))


@dataclass(frozen=True)
class _Padded:
    """A table for `tf.gather`, one row of which gets no gradient from it."""

    table: tf.Variable
    row: int

    def sparse_read(self, indices: tf.Tensor, name: str | None = None) -> tf.Tensor:
        """The rows of these indices; a negative number of the row without a gradient counts from the end."""
        rows = tf.gather(self.table, indices, name=name)
        padding = indices == (self.row if self.row >= 0 else self.row + self.table.shape[0])
        return tf.where(padding[..., None], tf.stop_gradient(rows), rows)


def _stopping(
    look_up: Callable[..., tf.Tensor], layer: keras.layers.Layer, names: tuple[str, ...], row: int
) -> MethodType:
    """The method `look_up` of a built layer, whose tables of these names are `_Padded` in it."""
    whole = {name: getattr(layer, name) for name in names}
    padded = {name: _Padded(table, row) for name, table in whole.items()}

    def looked_up(self: keras.layers.Layer, *args: Any, **kwargs: Any) -> tf.Tensor:
        vars(self).update(padded)  # Not by setattr, by which Keras would forget the variables.
        try:
            return look_up(*args, **kwargs)
        finally:
            vars(self).update(whole)

    return MethodType(looked_up, layer)  # A plain function as `call` could not be exported.


class _CausalRoFormerEncoder(TFRoFormerEncoder):
    def call(self, hidden_states: tf.Tensor, attention_mask: tf.Tensor, *args: Any, **kwargs: Any) -> Any:
        length = tf.shape(hidden_states)[1]
        later = 1.0 - tf.linalg.band_part(tf.ones((length, length), hidden_states.dtype), -1, 0)
        return super().call(hidden_states, attention_mask - 10000.0 * later, *args, **kwargs)


class _TiedHead(keras.layers.Layer):
    """The input embeddings as output weights, without own weights."""

    def __init__(self, embeddings: keras.layers.Layer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._embeddings = [embeddings]  # In a list that Keras does not track, or the weights would be listed twice.

    def call(self, hidden_states: tf.Tensor) -> tf.Tensor:
        weight = tf.cast(self._embeddings[0].weights[0], hidden_states.dtype)
        return tf.matmul(hidden_states, weight, transpose_b=True)


def _within_window(prepare: Callable[..., tf.Tensor], window: int) -> Callable[..., tf.Tensor]:
    """A mask as `prepare` makes it, of shape (rows, 1, length, past + length), that also ends `window` tokens back."""

    def prepared(attention_mask: Any, input_shape: Any, inputs_embeds: tf.Tensor, past: Any) -> tf.Tensor:
        mask = prepare(attention_mask, input_shape, inputs_embeds, past)
        queries = tf.range(input_shape[-1])[:, None] + past
        return tf.where(queries - tf.range(input_shape[-1] + past)[None] < window, mask, mask.dtype.min)

    return prepared
