"""First weights of a model from scratch, the same in every framework.

The rules are those that transformers' PyTorch classes have in `_init_weights`: a matrix is drawn from a normal
distribution, the weight of a norm is 1, a bias is 0. Only the draw is ours, since each framework has its own.
"""

import hashlib
import math
from typing import Any

import numpy as np
import numpy.typing as npt

ARCHITECTURES = frozenset(
    {
        *("bert", "camembert", "ctrl", "gpt2", "gptj", "mistral", "openai-gpt", "opt", "rembert", "roberta"),
        *("roberta-prelayernorm", "roformer", "xglm", "xlm", "xlm-roberta", "xlnet"),
    }
)
"""The model types that these rules are right for: those that transformers has in more than one framework."""

PART = 1 << 20
"""Numbers drawn at a time, so that a large embedding needs little extra memory."""

Array = npt.NDArray[np.float32]


def first_weight(name: str, shape: tuple[int, ...], architecture: Any, *, seed: int) -> Array | None:
    """The first value of the parameter that PyTorch calls `name`, float32 of its shape in PyTorch.

    It depends on the arguments alone. The row of a padding token is drawn like any other, since blocks have no padding.
    None where the framework's own value stays: in an architecture that is not among `ARCHITECTURES`, and for
    sinusoidal positions, which are computed and not drawn.
    """
    if architecture.model_type not in ARCHITECTURES or _is_computed(name, architecture):
        return None
    if len(shape) == 1:
        return np.full(shape, 0.0 if name.endswith("bias") else 1.0, np.float32)
    return _normal(name, math.prod(shape), _deviation(name, architecture), seed).reshape(shape)


def _is_computed(name: str, architecture: Any) -> bool:
    sinusoidal = architecture.model_type == "roformer" or getattr(architecture, "sinusoidal_embeddings", False)
    return sinusoidal and name.endswith(("embed_positions.weight", "position_embeddings.weight"))


def _deviation(name: str, architecture: Any) -> float:
    kind = architecture.model_type
    if kind == "xlm" and "embeddings" in name:
        return float(architecture.embed_init_std)
    deviation = float(architecture.init_std if kind in ("opt", "xglm", "xlm") else architecture.initializer_range)
    # The layers that add to the residual stream, as in the GPT-2 paper (Radford et al., 2019, section 2.3).
    return deviation / math.sqrt(2 * architecture.n_layer) if kind == "gpt2" and "c_proj" in name else deviation


def _normal(name: str, count: int, deviation: float, seed: int) -> Array:
    """Normal numbers from the raw output of a bit generator, which NumPy keeps stable between versions (NEP 19)."""
    words = np.frombuffer(hashlib.sha256(name.encode()).digest(), "<u4")
    bits = np.random.PCG64(np.random.SeedSequence([seed, *words.tolist()]))
    numbers = np.empty(count, np.float32)
    for start in range(0, count, PART):
        part = numbers[start : start + PART]
        part[:] = deviation * _box_muller(bits.random_raw(2 * math.ceil(len(part) / 2)))[: len(part)]
    return numbers


def _box_muller(raw: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """As many standard normal numbers as there are raw ones, an even count (Box and Muller, 1958)."""
    uniform = ((raw >> np.uint64(11)) + 0.5) * 2.0**-53  # Between 0 and 1, and never 0, of which there is no logarithm.
    radius, angle = np.sqrt(-2.0 * np.log(uniform[::2])), 2.0 * math.pi * uniform[1::2]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
