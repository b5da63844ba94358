"""How much of what its devices can compute a training uses: the model FLOPs utilization (MFU)."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from clm_core.backend import Model
from clm_core.config import TrainConfig
from clm_core.models.parameter_count import count_experts, count_parameters

TERA = 1e12

PEAKS: dict[str, tuple[float | None, float | None]] = {
    "A10": (125, 31.2),
    "A100": (312, 19.5),
    "A40": (149.7, 37.4),
    "B200": (2250, None),
    "H100 NVL": (835, 60),
    "H100 PCIe": (756, 51),
    "H100": (989.4, 66.9),
    "H200": (989.4, 66.9),
    "L4": (121, 30.3),
    "L40": (181, 90.5),
    "L40S": (362, 91.6),
    "MI300X": (1307.4, 163.4),
    "RTX 3090": (71, 35.6),
    "RTX 4090": (165.2, 82.6),
    "RTX A6000": (154.8, 38.7),
    "T4": (None, 8.1),
    "V100-PCIE": (None, 14.0),
    "V100-SXM2": (None, 15.7),
}
"""By their makers' data sheets: 10^12 operations a second in bfloat16, of dense matrices, and in float32."""


@dataclass(frozen=True)
class Utilization:
    """What a block takes, and what all devices can do."""

    flops_of_block: float
    flops_per_second: float

    @classmethod
    def of(cls, model: Model, config: TrainConfig, device: str | None, devices: int) -> Utilization | None:
        """That of a training on `devices` like `device`; None if either figure is not known."""
        peak = peak_of(device, bf16=config.computes_in_bfloat16) if device else None
        flops = None if peak is None else flops_of_block(model, config)
        return None if peak is None or flops is None else cls(flops, peak * devices)

    def at(self, blocks: int, seconds: float) -> float:
        """The part of all operations of `seconds` that `blocks` blocks need, 0 to 1."""
        return self.flops_of_block * blocks / (self.flops_per_second * max(seconds, 1e-9))


def median_of(history: Iterable[dict[str, Any]]) -> float | None:
    """That of a whole run, from the lines of its history; None where none of them has it."""
    found = [line["mfu"] for line in history if "mfu" in line]
    return statistics.median(found) if found else None


def peak_of(device: str, *, bf16: bool) -> float | None:
    """The most operations a second of a device of this name; None if it is not known, as that of a part of one."""
    names = [name for name in PEAKS if re.search(rf"\b{re.escape(name)}\b", device, re.IGNORECASE)]
    if not names or "MIG" in device:
        return None
    peak = PEAKS[max(names, key=len)][0 if bf16 else 1]
    return None if peak is None else peak * TERA


def flops_of_block(model: Model, config: TrainConfig) -> float | None:
    """The operations that a training needs for a block, forward and backward; None where the formula does not hold.

    6 for each token and number in the matrices, and in attention 12 for each token, layer, position and component of
    its heads: Chowdhery et al., PaLM, appendix B (https://arxiv.org/abs/2204.02311). What is computed again, to save
    memory, does not count. Where a part of the weights is not trained, or not used for each token, they are fewer.
    """
    architecture: Any = model.architecture
    if model.adapter or config.freeze or config.train_only or count_experts(architecture) > 1:
        return None
    in_layers = count_parameters(replace(model, name_or_path=None), in_layers=True)
    if in_layers is None:
        return None
    heads, tokens = architecture.num_attention_heads, config.block_size
    size = getattr(architecture, "head_dim", None) or architecture.hidden_size // heads
    of_matrices = 6 * (in_layers + architecture.hidden_size * architecture.vocab_size)
    return float(tokens * (of_matrices + 12 * architecture.num_hidden_layers * heads * size * tokens))
