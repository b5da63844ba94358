"""Continues a prompt with `model.generate`."""

from typing import Any

import torch
from transformers import GenerationConfig, set_seed

from clm_core.backend import GenerationJob
from clm_core.config import SamplingOptions
from clm_pt.modeling import load, place
from clm_pt.repairs import ask_as_in_training, let_generate, uses_cache


def generate(job: GenerationJob) -> list[int]:
    """The ids that follow the prompt, the end-of-sequence token included where it was reached."""
    model = place(load(job.model))
    let_generate(model)
    ask_as_in_training(model)
    prompt = torch.tensor([job.prompt], device=model.device)
    model.generation_config = GenerationConfig(
        max_new_tokens=job.config.max_new_tokens,
        eos_token_id=list(job.eos_token_ids) or None,
        pad_token_id=job.eos_token_id,
        use_cache=uses_cache(model),
        **_sampling(job.config),
    )
    set_seed(job.config.seed)
    ids = model.generate(prompt, attention_mask=torch.ones_like(prompt))
    return ids[0, prompt.shape[1] :].tolist()


def _sampling(config: SamplingOptions) -> dict[str, Any]:
    """What `generate` warns about when it is given without do_sample, only with it."""
    if not config.do_sample:
        return {"do_sample": False}
    return {"do_sample": True, "top_k": config.top_k, "top_p": config.top_p, "temperature": config.temperature}
