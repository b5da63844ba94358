"""A decoder as one flat description: what a transformers configuration says, in the terms of `Decoder`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clm_core.errors import ModelError
from clm_tf.keras3.rope import Rope

Facts = dict[str, Any]
"""Fields of a `Layout`."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A decoder-only transformer: token embeddings, layers of attention and feed-forward, a final norm, a head.

    Sizes are in dimensions; what differs by layer is a tuple with an item for each layer.
    """

    model_type: str
    names: Mapping[str, str]
    """What PyTorch calls each part: its module, with `{}` for the number of the layer. A part without a name is absent.

    Of the model: `embeddings`, `projection_in`, `positions`, `embedding_norm`, `final_norm`, `projection_out`, `head`.
    Of a layer's attention: `query`, `key`, `value` or `query_key_value`, `output`, `query_norm`, `key_norm`. Of its
    feed-forward: `gate` and `up`, `up` alone, or `gate_up`, then `down`. Of a mixture's: `router`, `experts.gate`,
    `experts.up` and `experts.down`, with a second `{}` for the expert, and `shared_gate`, `shared.gate`, `shared.up`
    and `shared.down`. Its norms: `attention_norm` and `feedforward_norm` before each of the two,
    `attention_output_norm` and `feedforward_output_norm` after.
    """
    prefix: str
    """What PyTorch's class puts before the names of the model without its head; files may be without it."""
    transposed: bool = True
    """Whether PyTorch has the matrices of the layers as (outputs, inputs), as all have but GPT-2."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    key_value_heads: int
    """Fewer than `heads` where several queries share a key and a value."""
    head_size: int
    inner: int
    """The width of the feed-forward's activations."""
    embedding_width: int | None = None
    """Of token embeddings and head, if it is not that of the layers; `projection_in` and `projection_out` translate."""
    tied: bool
    """Whether the head is the token embeddings."""
    pad: int | None = None
    """The token whose embedding learns nothing as an input: PyTorch's `padding_idx`."""

    experts: int = 0
    """How many feed-forward branches a layer of a mixture has, with a router that scores them for each token."""
    experts_chosen: int = 0
    """How many of them a token gets."""
    expert_inner: int = 0
    shared_inner: int = 0
    """Of one more that every token gets, through a gate; 0 for none."""
    expert_layers: tuple[bool, ...] = ()
    """By layer: whether it has experts; none has where it is empty."""
    shares_normalized: bool = False
    """Whether the router's shares of the chosen experts are made to sum to 1."""

    balance_weight: float = 0.0
    """Of what the loss of a training gets for an uneven use of the experts."""

    norm: str = "rms"
    """`rms`, or `layer`, which takes the mean off too."""
    epsilon: float
    norm_offset: float = 0.0
    """What is added to the weight of a norm."""
    norm_weight: bool = True
    norm_bias: bool = False
    query_key_norm: str = "head"
    """Where there is one: over a `head` with one weight for all, over the `width` of all heads, or over `each_head`."""

    residual: str = "sequential"
    """`sequential`; `parallel`, where both branches read the same; `after`, where a norm follows each sum; or
    `normed`, where each norm's output is what its branch is added to."""
    residual_scale: float = 1.0

    activation: str = "silu"
    query_key_value: str = "joined"
    """How a fused projection has its outputs: queries, keys and values `joined`; `grouped`, the queries of a key, then
    the key and the value; or `codegen`, four parts, each with its queries, values and keys."""
    attention_bias: bool = False
    """Of the projections to queries, keys and values."""
    output_bias: bool = False
    feedforward_bias: bool = False
    head_bias: bool = False

    learned_positions: int = 0
    """How many there are in a table, from `first_position` on."""
    first_position: int = 0
    ropes: tuple[Rope | None, ...]
    """None where a layer rotates nothing."""
    afresh_beyond: int | None = None
    """The length above which a text that is generated is read again from its start, to rotate all of it anew."""
    interleaved: bool = False
    """Whether a pair that rotates is two neighbours, and not a dimension of either half."""
    windows: tuple[int | None, ...]
    """How many tokens a layer attends to, the last included; None for all."""
    slopes: tuple[float, ...] = ()
    """By head: what is added to the score of a key, times its position (ALiBi)."""
    rounded_slopes: float | None = None
    """The factor on slopes times positions where both, and the product, are rounded to bfloat16; None for neither."""

    scales: tuple[float, ...]
    """By layer: the factor on the products of queries and keys."""
    clip: float | None = None
    """The largest number, in absolute terms, in queries, keys and values."""
    score_cap: float | None = None
    """Where scores are bent towards, by a hyperbolic tangent; the same for logits below."""
    logit_cap: float | None = None
    embedding_scale: float = 1.0
    logit_scale: float = 1.0

    embedding_dropout: float = 0.0
    attention_dropout: float = 0.0
    """Of the attention to each key."""
    residual_dropout: float = 0.0
    """Of what the attention adds."""
    feedforward_dropout: float = 0.0
    """Of what the feed-forward adds."""
    sum_dropout: float = 0.0
    """Of what two parallel branches add together."""


ACTIVATIONS = frozenset(
    ("gelu", "gelu_fast", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "relu2", "silu", "swish", "tanh")
)
"""By transformers' name: those that `feedforward` computes."""

INERT = frozenset(
    {
        # What the file is, who wrote it, and with what it is opened.
        *("architectures", "auto_map", "dtype", "torch_dtype", "model_type", "name_or_path", "_name_or_path"),
        *("transformers_version", "transformers.js_config", "_commit_hash", "tokenizer_class", "is_llama_config"),
        *("_attn_implementation", "_attn_implementation_internal", "attn_implementation"),
        *("unsloth_version", "unsloth_fixed"),
        # What a model returns beside logits, and how it is called.
        *("output_attentions", "output_hidden_states", "return_dict", "use_return_dict", "use_cache"),
        *("task_specific_params", "prefix"),
        # Heads of other tasks: classes, and their names.
        *("id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "classifier_dropout"),
        *("summary_type", "summary_use_proj", "summary_activation", "summary_first_dropout", "summary_proj_to_labels"),
        # Tokens that begin and end a text: generation asks for them. A family with a row for padding reads that one.
        *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id"),
        # First weights, which the core draws; and how a product is divided among devices.
        *("initializer_range", "init_std", "pretraining_tp"),
        # How long a text may be, where no table of positions ends there; rotations read it themselves.
        "max_position_embeddings",
    }
)
"""Fields that say nothing about what a decoder computes, or that say it to the families that read them."""


class Fields(Mapping[str, Any]):
    """The fields of a configuration, which know which of them were read."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields
        self._read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        if name not in self._fields:
            raise KeyError(name)
        self._read.add(name)
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def named(self, value: Any, *parts: str) -> str:
        """The field that was read and has this value, out of those with one of the parts in their names."""
        read = (name for name in sorted(self._read) if any(part in name for part in parts))
        return next((name for name in read if self._fields[name] == value), parts[0])

    def expect(self, name: str, *values: Any) -> None:
        """Make sure that a field, if it is there, has one of the values that are known here.

        Raises:
            ModelError: it has another.
        """
        if (found := self.get(name, values[0])) not in values:
            raise self.refused(name, found)

    def expect_counts(self, *names: str) -> None:
        """Make sure that these fields, where there are any, are whole numbers above 0, or null; none counts as read.

        Raises:
            ModelError: one is something else.
        """
        for name in names:
            value = self._fields.get(name)
            if value is not None and (type(value) is not int or value < 1):
                raise self.refused(name, value)

    def unread(self) -> set[str]:
        """What was not read, and may say something."""
        return set(self._fields) - self._read - INERT

    def refused(self, name: str, value: Any) -> ModelError:
        """The error about a field that says what is not known here."""
        return ModelError(
            f"model type {self._fields.get('model_type')}: {name} {value!r} in its configuration is not supported by "
            "backend keras, which would compute another model: use --backend pt, or change it in config.json or with "
            "--config-overrides"
        )
