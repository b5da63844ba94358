"""Options that name a model and its tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from clm_core.config.declaration import option

SAMPLE: Final = "sample"
"""What `tokenizer_name` calls the tokenizer of the built-in sample."""

NAMED = ("model_name_or_path", "config_name", "tokenizer_name")
"""The options that name a folder, or something on the Hub, for the model and its tokenizer."""


def named(config: Any, options: Sequence[str] = NAMED) -> dict[str, Any]:
    """What is given of these options; not the tokenizer of the sample, which is in no folder of this name."""
    given = {option: value for option in options if (value := getattr(config, option, None))}
    return {option: value for option, value in given.items() if (option, value) != ("tokenizer_name", SAMPLE)}


@dataclass(frozen=True, kw_only=True)
class TokenizerOptions:
    """The model and its tokenizer."""

    model_name_or_path: str | None = option(
        None, "a model to start from, with its tokenizer: a folder, or a name on the Hub"
    )
    model_revision: str = option("main", "the branch, tag or commit of the model on the Hub")
    tokenizer_name: str | None = option(
        None,
        "a tokenizer to use instead of the model's: a folder, a name on the Hub, or `sample`; default: the model's",
    )


@dataclass(frozen=True, kw_only=True)
class WeightsOptions:
    """Reading the weights of `model_name_or_path`."""

    ignore_unused_weights: bool = option(
        False, "accept a model whose files contain tensors that it does not use, such as those of an adapter"
    )


FLOAT32: Final = "float32"
BFLOAT16: Final = "bfloat16"
AUTO: Final = "auto"
"""The values of `dtype`."""

_NOT_HERE = dict.fromkeys(
    ("float16", "fp16", "half"), "its range is too small for gradients: give bfloat16, whose range is that of float32"
)


@dataclass(frozen=True, kw_only=True)
class DtypeOptions:
    """The type of the weights."""

    dtype: Literal["float32", "bfloat16", "auto"] = option(
        FLOAT32,
        "the type of the weights in memory; bfloat16 includes what bf16 does; `auto`: bfloat16 if most of the model's "
        "numbers are bfloat16 in its files, otherwise float32",
        same={"bf16": BFLOAT16, "fp32": FLOAT32},
        refused=_NOT_HERE,
    )

    @property
    def has_bfloat16_weights(self) -> bool:
        """Whether the weights are bfloat16 in memory; `auto` is replaced before a backend gets it."""
        return self.dtype == BFLOAT16


@dataclass(frozen=True, kw_only=True)
class TrainedDtypeOptions(DtypeOptions):
    """The type of the weights; what is written is float32."""

    dtype: Literal["float32", "bfloat16"] = option(
        FLOAT32,
        "the type of the weights in memory; bfloat16 includes what bf16 does, and the optimizer keeps float32 weights "
        "too, which it updates and which are written",
        same={"bf16": BFLOAT16, "fp32": FLOAT32},
        refused={**_NOT_HERE, AUTO: "it is for evaluate and generate: a training is told, by float32 or bfloat16"},
    )


@dataclass(frozen=True, kw_only=True)
class ArchitectureOptions:
    """A model from scratch, instead of `model_name_or_path`."""

    config_name: str | None = option(None, "train from scratch with this configuration: a folder, or a name on the Hub")
    model_type: str | None = option(None, "train from scratch with this architecture's defaults, such as `gpt2`")


@dataclass(frozen=True, kw_only=True)
class ModelChangesOptions:
    """Changes to a model, new or not."""

    config_overrides: str | None = option(
        None,
        "changes to the configuration, such as `n_embd=256,n_layer=4,n_head=4`; of an existing model, of nothing that "
        "shapes its weights, such as `resid_pdrop=0`; a value may be JSON",
        metavar="KEY=VALUE,...",
    )
    resize_embeddings: bool = option(
        False,
        "add token embeddings to an existing model where the tokenizer has more ids than there are; each new one is "
        "the mean of the others",
    )
