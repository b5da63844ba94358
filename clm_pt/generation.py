"""Continues a prompt with `model.generate`."""

import torch
from transformers import GenerationConfig, set_seed

from clm_core.backend import GenerationJob
from clm_pt.modeling import load_to_use, precision
from clm_pt.products import fastest_products
from clm_pt.repairs import ask_as_in_training, let_generate, uses_cache


@fastest_products()
def generate(job: GenerationJob) -> list[int]:
    """The ids that follow the prompt, the end-of-sequence token included where it was reached."""
    model = load_to_use(job.model, job.config)
    let_generate(model)
    ask_as_in_training(model)
    prompt = torch.tensor([job.prompt], device=model.device)
    model.generation_config = GenerationConfig(use_cache=uses_cache(model), **job.settings())
    set_seed(job.config.seed)
    with precision(job.config.has_bfloat16_weights):
        ids = model.generate(prompt, attention_mask=torch.ones_like(prompt))
    return ids[0, prompt.shape[1] :].tolist()
