"""An adapter as data: which modules of which model it belongs to, its rank and its scale."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LORA_A, LORA_B = ".lora_A.weight", ".lora_B.weight"
"""How the names of the two matrices end."""

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""The files of an adapter, as peft calls them."""

BASE = "adapter_base.json"
"""Beside them: the sums of the weight files of a base in a folder, as they were when the adapter began."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """LoRA beside some dense layers of a model (Hu et al., 2021), and modules that are trained whole."""

    r: int
    alpha: float
    dropout: float
    """Of what goes into the adapter, in training."""
    use_rslora: bool
    target_modules: tuple[str, ...]
    """The dense layers with an adapter, by their names in PyTorch or how these end after a dot; or `all-linear`."""
    modules_to_save: tuple[str, ...]
    """The modules that are trained whole, by how their names in PyTorch end."""
    base: str
    """The model that the adapter belongs to: its name on the Hub, or the absolute path of its folder."""
    base_revision: str
    folder: str | None = None
    """Where the files of the adapter are; None for a new one, which is drawn from the seed of the model."""
    base_files: Mapping[str, Any] | None = field(default=None, hash=False)
    """Size and SHA-256 of each weight file of a base in a folder, when the adapter began; None if that is not known."""

    @property
    def scale(self) -> float:
        """What the product of the two matrices is multiplied by."""
        return self.alpha / (math.sqrt(self.r) if self.use_rslora else self.r)

    def is_target(self, module: str) -> bool:
        """Whether a dense layer of this name, such as `transformer.h.0.attn.c_attn`, is named; as peft decides it."""
        return any(module == name or module.endswith(f".{name}") for name in self.target_modules)

    def saves_whole(self, module: str) -> bool:
        """Whether a module of this name is named to be trained whole; as peft decides it, without a dot before."""
        return module.endswith(self.modules_to_save)
