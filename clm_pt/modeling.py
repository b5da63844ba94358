"""Models in and out: loaded whole or not at all, initialised from a seed, saved and read back."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel, set_seed

from clm_core.backend import Model
from clm_core.errors import ModelError


def load(model: Model) -> PreTrainedModel:
    """The model, float32, on the CPU.

    Raises:
        ModelError: transformers has no causal language model of this architecture, or the weights cannot be read,
            are incomplete, or belong to another architecture.
    """
    set_seed(model.seed)
    return _from_pretrained(model) if model.name_or_path else _from_config(model.architecture)


def save(model: PreTrainedModel, folder: Path) -> None:
    """Write model.safetensors, config.json and generation_config.json, and make sure that they can be read back.

    Raises:
        ModelError: what was read back is not what was written.
    """
    model.save_pretrained(folder)
    own = model.state_dict()
    written = {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}
    if not written or any(not torch.equal(tensor, own[name].cpu()) for name, tensor in written.items()):
        raise ModelError(f"the weights read back from {folder} are not those of the model: is the disk sound?")


def place(model: PreTrainedModel) -> PreTrainedModel:
    """The model on the accelerator, where there is one, ready to score and generate."""
    return model.to(torch.accelerator.current_accelerator() or "cpu").eval()


def _from_config(architecture: Any) -> PreTrainedModel:
    try:
        return AutoModelForCausalLM.from_config(architecture, trust_remote_code=False, dtype=torch.float32)
    except ValueError as error:
        kind = architecture.model_type
        raise ModelError(f"transformers cannot make a {kind} that predicts tokens: {_head(error)}") from None


def _from_pretrained(model: Model) -> PreTrainedModel:
    try:
        loaded, report = AutoModelForCausalLM.from_pretrained(
            model.name_or_path,
            revision=model.revision,
            config=model.architecture,
            dtype=torch.float32,
            use_safetensors=True,  # A stranger's pickle can run anything.
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"cannot load the weights of {model.name_or_path}: {_head(error)}") from None
    if lost := sorted({*report["missing_keys"], *(key[0] for key in report["mismatched_keys"])}):
        raise ModelError(
            f"the weights of {model.name_or_path} lack {len(lost)} of the model's tensors, or have them in another "
            f"shape: {', '.join(lost[:5])}{', ...' * (len(lost) > 5)}"
        )
    return loaded


def _head(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
