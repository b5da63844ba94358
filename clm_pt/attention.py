"""How a model computes attention in training: as an option says, where model and machine can."""

import torch
from transformers import PreTrainedModel

from clm_core.errors import OptionError, first_line
from clm_core.models.ignored_fields import attention
from clm_pt.modeling import precision
from clm_pt.repairs import EAGER

LENGTH = 8


def choose_attention(model: PreTrainedModel, wanted: str, *, bf16: bool) -> None:
    """Have a model compute attention as `wanted`; "auto" leaves it to transformers. What is saved does not say it.

    Raises:
        OptionError: it has no such attention or needs another, or a package, or a device that trains so, is missing.
    """
    if wanted == "auto":
        return
    kind, option = model.config.model_type, f"pt attn implementation {wanted}"
    if wanted != "eager" and (kind in EAGER or attention(model.config, "pt")):
        raise OptionError(f"{option}: a model of type {kind} is what its configuration says only with eager")
    try:
        model.set_attn_implementation(wanted)
        if not torch.accelerator.is_available():
            _compute_a_gradient(model, bf16=bf16)
    except (ImportError, ValueError, RuntimeError) as error:
        raise OptionError(
            f"{option}: a model of type {kind} cannot be trained so here: {first_line(error)}; give another "
            "--pt-attn-implementation, such as sdpa or eager, or leave it out"
        ) from error


def _compute_a_gradient(model: PreTrainedModel, *, bf16: bool) -> None:
    """It is forgotten; some kinds of attention compute none on a CPU."""
    ids = torch.zeros((1, LENGTH), dtype=torch.int64)
    with torch.random.fork_rng(devices=[]), precision(bf16):
        model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float().sum().backward()
    model.zero_grad()
