"""Names of weights in files, where transformers 5 has other names in memory, or the weights of all experts in one."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

_EXPERTS = {
    "experts.gate_up_proj": ("experts.{}.gate_proj.weight", "experts.{}.up_proj.weight"),
    "experts.down_proj": ("experts.{}.down_proj.weight",),
}
IN_FILES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("olmoe", "qwen2_moe", "qwen3_moe"), _EXPERTS),
    "gpt_neox": {"lm_head.weight": ("embed_out.weight",)},
    "mixtral": {
        "mlp.experts.gate_up_proj": ("block_sparse_moe.experts.{}.w1.weight", "block_sparse_moe.experts.{}.w3.weight"),
        "mlp.experts.down_proj": ("block_sparse_moe.experts.{}.w2.weight",),
        "mlp.gate.weight": ("block_sparse_moe.gate.weight",),
    },
}
"""By model type, and by how a name in memory ends: how those in files end, of which each expert has its own.

The rows of several, one below the other, are those of the one in memory.
"""


def shapes_in_files(name: str, shape: tuple[int, ...], model_type: str) -> dict[str, tuple[int, ...]]:
    """The names and shapes that a parameter has in files; itself, for nearly all."""
    if not (names := _names(name, model_type)):
        return {name: shape}
    *experts, rows, columns = shape
    return {
        each.format(expert): (rows // len(names), columns) for expert in range(math.prod(experts)) for each in names
    }


def join(name: str, shape: tuple[int, ...], model_type: str, get: Callable[[str], Any]) -> Array:
    """A parameter from the tensors that there are in files; `get` returns one by its name there."""
    names = list(shapes_in_files(name, shape, model_type))
    return np.stack([get(each) for each in names]).reshape(shape)


def _names(name: str, model_type: str) -> list[str]:
    for ending, parts in IN_FILES.get(model_type, {}).items():
        if name.endswith(ending):
            return [name.removesuffix(ending) + part for part in parts]
    return []
