"""How many parameters a model has: from the headers of its files or, if it is new, from its configuration."""

import math
from typing import Any

from clm_core.backend import Adapter, Model
from clm_core.config import ALL_LINEAR, TrainConfig
from clm_core.errors import ModelError, OptionError
from clm_core.models.architectures import count_embeddings
from clm_core.models.matrices import is_matrix_of_layer
from clm_core.models.parts import trained
from clm_core.models.weight_files import StoredWeights

GATED = frozenset(
    (
        *("cohere", "cohere2", "exaone4", "gemma", "gemma2", "gemma3_text", "glm", "glm4", "gpt_oss", "granite"),
        *("helium", "llama", "ministral", "mistral", "mixtral", "olmo", "olmo2", "olmo3", "olmoe", "phi3", "qwen2"),
        *("qwen2_moe", "qwen3", "qwen3_moe", "seed_oss", "smollm3", "stablelm"),
    )
)
"""The model types whose feed-forward branch has a gate: three matrices instead of two."""

PLAIN = frozenset(
    (
        *("arcee", "bert", "bloom", "camembert", "codegen", "ctrl", "falcon", "gpt2", "gpt_neo", "gpt_neox", "gptj"),
        *("mpt", "nemotron", "openai-gpt", "opt", "phi", "roberta", "roberta-prelayernorm", "starcoder2", "xglm"),
        *("xlm", "xlm-roberta"),
    )
)

TABLES = frozenset(("bert", "camembert", "gpt2", "gpt_neo", "openai-gpt", "opt", "roberta", "roberta-prelayernorm"))
TABLES |= {"xlm", "xlm-roberta"}
"""The model types that learn a vector for each position."""

INNER = ("moe_intermediate_size", "intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", "dff")
"""What configurations call the width of the feed-forward branch; without any, it is four times that of the model."""


EXPERTS = ("num_local_experts", "num_experts")
"""What configurations call the number of experts in a layer."""


def count_parameters(model: Model, *, in_layers: bool = False) -> int | None:
    """The numbers in the weights that a training writes, without biases and norms of a new one; None if unknown.

    With `in_layers`, those of the matrices of its layers alone. Nothing but headers is read, but files on the Hub are
    downloaded, as the training does. Of a model with an adapter, they are those of the adapter.
    """
    if model.adapter:
        return _count_adapter(model)
    try:
        if model.name_or_path is None:
            return _count_new(model.architecture, in_layers=in_layers)
        shapes = StoredWeights.of(model).shapes.items()
        return sum(math.prod(it) for name, it in shapes if not in_layers or is_matrix_of_layer(name, len(it)))
    except (ModelError, AttributeError, TypeError, ZeroDivisionError):  # The training says what is wrong with it.
        return None


def count_trained(model: Model, options: TrainConfig, *, in_layers: bool = False) -> int | None:
    """How many of them a training changes, or at least as many; None if `count_parameters` is.

    What `embeddings` means in a file is found by the number of its rows, as near as this is needed here.
    """
    count = count_parameters(model, in_layers=in_layers)
    if count is None or model.adapter or not (options.freeze or options.train_only):
        return count
    if model.name_or_path is None:  # There are no names yet.
        return 0
    shapes, rows = StoredWeights.of(model).shapes, count_embeddings(model.architecture)
    embeddings = [name for name, shape in shapes.items() if len(shape) == 2 and shape[0] == rows]
    try:
        found = {name: shapes[name] for name in trained(shapes, options, embeddings=embeddings)}
    except OptionError:  # The files may be without a prefix that the model's names have; else the training says so.
        return 0
    return sum(math.prod(it) for name, it in found.items() if not in_layers or is_matrix_of_layer(name, len(it)))


def count_experts(architecture: Any) -> int:
    """The experts of a layer, of which each token takes some; 1 where there are none."""
    return next((int(n) for name in EXPERTS if (n := getattr(architecture, name, None))), 1)


def _count_adapter(model: Model) -> int | None:
    """At most as many numbers as the adapter of a model has; None if its base cannot be read.

    `all-linear` leaves out matrices that are no dense layers, which only a framework knows.
    """
    adapter = model.adapter
    assert adapter is not None
    try:
        shapes = StoredWeights.of(model).shapes
    except ModelError:  # As above.
        return None
    return sum(_count_beside(adapter, name, shape) for name, shape in shapes.items())


def _count_beside(adapter: Adapter, name: str, shape: tuple[int, ...]) -> int:
    """What an adapter has for a weight."""
    module = name.rpartition(".")[0]
    if any(adapter.saves_whole(".".join(module.split(".")[:end])) for end in range(1, module.count(".") + 2)):
        return math.prod(shape)
    is_target = adapter.target_modules == (ALL_LINEAR,) or adapter.is_target(module)
    return adapter.r * sum(shape) if is_target and len(shape) == 2 else 0


def _count_new(architecture: Any, *, in_layers: bool) -> int | None:
    kind, width = architecture.model_type, architecture.hidden_size
    if kind not in GATED | PLAIN or _is_mixed(architecture):
        return None
    embeddings = architecture.vocab_size * (1 if architecture.tie_word_embeddings else 2)
    positions = architecture.max_position_embeddings if kind in TABLES else 0
    layer = _count_attention(architecture) + _count_feed_forward(architecture)
    outside = 0 if in_layers else width * (embeddings + positions)
    return int(outside + architecture.num_hidden_layers * layer)


def _is_mixed(architecture: Any) -> bool:
    """Whether some layers of a mixture have no experts."""
    every = getattr(architecture, "decoder_sparse_step", 1)
    return every != 1 or bool(getattr(architecture, "mlp_only_layers", None))


def _count_attention(architecture: Any) -> int:
    width, heads = architecture.hidden_size, architecture.num_attention_heads
    size = getattr(architecture, "head_dim", None) or width // heads
    return int(2 * width * size * (heads + _key_value_heads(architecture)))


def _key_value_heads(architecture: Any) -> int:
    """The heads of keys and values, which several of queries may share."""
    if architecture.model_type == "falcon":
        if architecture.new_decoder_architecture:
            return int(architecture.num_kv_heads)
        return 1 if architecture.multi_query else int(architecture.num_attention_heads)
    return int(getattr(architecture, "num_key_value_heads", None) or architecture.num_attention_heads)


def _count_feed_forward(architecture: Any) -> int:
    width, matrices = architecture.hidden_size, 3 if architecture.model_type in GATED else 2
    inner = next((size for name in INNER if (size := getattr(architecture, name, None))), 4 * width)
    shared = getattr(architecture, "shared_expert_intermediate_size", 0)
    return int(matrices * width * (inner * count_experts(architecture) + shared))
