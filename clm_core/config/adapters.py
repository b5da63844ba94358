"""Options for adapters."""

from dataclasses import dataclass

from clm_core.config.declaration import option
from clm_core.config.values import at_least, between, module_names, target_modules

WITHOUT_LORA = "has no effect without lora_r, which trains an adapter"
"""What is said of the other options here, where none is trained."""


@dataclass(frozen=True, kw_only=True)
class AdapterOptions:
    """Adapters by LoRA; the model stays as it is, and two small matrices beside each of some layers are trained."""

    lora_r: int | None = option(
        None, "train an adapter of this rank, by LoRA, in place of the model's weights", metavar="R", check=at_least(1)
    )
    lora_alpha: int | None = option(
        None, "what the adapter adds is scaled by lora_alpha / lora_r; default: lora_r", check=at_least(1)
    )
    lora_dropout: float = option(
        0.0, "dropout of what goes into the adapter, in training", check=between(0, 1, open_high=True)
    )
    lora_target_modules: tuple[str, ...] = option(
        (),
        "the dense layers that get an adapter, by how their names in PyTorch end, such as `q_proj v_proj`, or "
        "`all-linear` for all but the output layer; default: those that peft takes for the architecture",
        metavar="NAME",
        check=target_modules,
    )
    lora_modules_to_save: tuple[str, ...] = option(
        (),
        "modules that are trained whole and saved with the adapter, by how their names in PyTorch end",
        metavar="NAME",
        check=module_names,
    )
    use_rslora: bool = option(False, "scale by lora_alpha / sqrt(lora_r), which keeps its size at a high rank")
