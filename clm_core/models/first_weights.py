"""First weights of a model from scratch, the same in every framework.

The rules are those that transformers' PyTorch classes have in `_init_weights`: a matrix is drawn from a normal
distribution, the weight of a norm is 1, a bias is 0, but for what `RULES` says. Only the draw is ours, since each
framework has its own.
"""

import hashlib
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from clm_core.errors import ModelError
from clm_core.models.file_names import join, shapes_in_files


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How the first weights of a model type differ from the usual."""

    deviation: str = "initializer_range"
    """The field of the configuration that has the standard deviation of what is drawn."""
    norm: float = 1.0
    """The weight of a norm: 0 where the class adds 1 to it."""
    exceptions: Mapping[str, float | str] = field(default_factory=dict)
    """By how a name ends: a constant, or the field that has the standard deviation."""
    residual: str | None = None
    """How the names of matrices end that add to the residual stream, and are drawn smaller: as in the GPT-2 paper
    (Radford et al., 2019, section 2.3)."""


USUAL = (
    *("arcee", "bert", "bloom", "camembert", "codegen", "cohere2", "ctrl", "exaone4", "falcon", "glm"),
    *("glm4", "gpt_neo", "gpt_neox", "gptj", "granite", "helium", "llama", "ministral", "mistral"),
    *("mixtral", "mpt", "nemotron", "olmo", "olmo2", "olmo3", "olmoe", "openai-gpt", "phi", "phi3"),
    *("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "rembert", "roberta", "roberta-prelayernorm", "roformer"),
    *("seed_oss", "smollm3", "stablelm", "starcoder2", "xlm-roberta", "xlnet"),
)
"""The model types that differ in nothing."""

RULES: Mapping[str, Rules] = {
    **dict.fromkeys(USUAL, Rules()),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), Rules(norm=0.0)),
    **dict.fromkeys(("opt", "xglm"), Rules(deviation="init_std")),
    "cohere": Rules(exceptions={"q_norm.weight": 1.0, "k_norm.weight": 1.0}),  # A norm for each head: two dimensions.
    "gpt2": Rules(residual="c_proj.weight"),
    "gpt_oss": Rules(exceptions={"_proj_bias": 0.0, "router.bias": "initializer_range", "sinks": "initializer_range"}),
    "xlm": Rules(deviation="init_std", exceptions={"embeddings.weight": "embed_init_std"}),
}
"""The model types whose first weights are known, by their names in transformers."""

ARCHITECTURES = frozenset(RULES)

PART = 1 << 20
"""Numbers drawn at a time, so that a large embedding needs little extra memory; the draw depends on it."""

THREADS = 4
"""Parts drawn at once, each of which takes some 50 MB while it is drawn."""

Array = npt.NDArray[np.float32]


def first_weight(name: str, shape: tuple[int, ...], architecture: Any, *, seed: int) -> Array | None:
    """The first value of the parameter that PyTorch calls `name`, float32 of its shape in PyTorch.

    It depends on the arguments alone. The row of a padding token is drawn like any other, since blocks have no padding.
    What transformers 5 calls otherwise than files do, or has in one tensor, has the numbers of the tensors in files.
    None where the framework's own value stays: in an architecture that is not among `ARCHITECTURES`, and for
    sinusoidal positions, which are computed and not drawn.

    Raises:
        ModelError: the field of the configuration that has the deviation has no number in it.
    """
    if architecture.model_type not in RULES or _is_computed(name, architecture):
        return None
    rules, in_files = RULES[architecture.model_type], shapes_in_files(name, shape, architecture.model_type)
    if list(in_files) != [name]:
        drawn = {each: first_weight(each, own, architecture, seed=seed) for each, own in in_files.items()}
        return join(name, shape, architecture.model_type, drawn.__getitem__)
    value = _value(name, len(shape), rules)
    if not isinstance(value, str):
        return np.full(shape, value, np.float32)
    deviation = _deviation(value, architecture)
    if rules.residual and name.endswith(rules.residual):
        deviation /= math.sqrt(2 * architecture.num_hidden_layers)
    return _normal(name, math.prod(shape), deviation, seed).reshape(shape)


def draws_all(architecture: Any) -> bool:
    """Whether `first_weight` has the first values of all parameters, and the framework need draw none."""
    return architecture.model_type in RULES and not _has_sinusoids(architecture)


def uniform(name: str, shape: tuple[int, ...], limit: float, *, seed: int) -> Array:
    """Numbers between plus and minus `limit`, float32, drawn for a tensor of this name."""
    raw = _bits(name, seed).random_raw(math.prod(shape))
    drawn: Array = (limit * (2.0 * _between_0_and_1(raw) - 1.0)).astype(np.float32)
    return drawn.reshape(shape)


def _is_computed(name: str, architecture: Any) -> bool:
    positions = ("embed_positions.weight", "position_embeddings.weight")
    return _has_sinusoids(architecture) and name.endswith(positions)


def _has_sinusoids(architecture: Any) -> bool:
    return architecture.model_type == "roformer" or getattr(architecture, "sinusoidal_embeddings", False)


def _value(name: str, dimensions: int, rules: Rules) -> float | str:
    """A constant, or the field of the configuration that has the standard deviation."""
    for ending, value in rules.exceptions.items():
        if name.endswith(ending):
            return value
    if dimensions > 1:
        return rules.deviation
    return 0.0 if name.endswith("bias") else rules.norm


def _deviation(name: str, architecture: Any) -> float:
    value = getattr(architecture, name, None)
    if not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ModelError(
            f"model type {architecture.model_type}: {name} is {value!r}, but new weights need a standard deviation, "
            "a number of 0 or more"
        )
    return float(value)


def _normal(name: str, count: int, deviation: float, seed: int) -> Array:
    numbers = np.empty(count, np.float32)

    def draw(start: int) -> None:
        part = numbers[start : start + PART]
        bits = _bits(name, seed).advance(start)
        part[:] = deviation * _box_muller(bits.random_raw(2 * math.ceil(len(part) / 2)))[: len(part)]

    if count <= PART:
        draw(0)
        return numbers
    with ThreadPoolExecutor(THREADS) as threads:  # NumPy computes without Python's lock.
        list(threads.map(draw, range(0, count, PART)))
    return numbers


def _bits(name: str, seed: int) -> np.random.PCG64:
    """A bit generator, whose raw output NumPy keeps stable between versions (NEP 19)."""
    words = np.frombuffer(hashlib.sha256(name.encode()).digest(), "<u4")
    return np.random.PCG64(np.random.SeedSequence([seed, *words.tolist()]))


def _between_0_and_1(raw: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Uniform numbers; never 0, of which there is no logarithm."""
    return np.asarray(((raw >> np.uint64(11)) + 0.5) * 2.0**-53, np.float64)


def _box_muller(raw: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """As many standard normal numbers as there are raw ones, an even count (Box and Muller, 1958)."""
    uniform = _between_0_and_1(raw)
    radius, angle = np.sqrt(-2.0 * np.log(uniform[::2])), 2.0 * math.pi * uniform[1::2]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
