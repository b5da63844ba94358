"""Continuing a prompt with `model.generate`."""

from typing import Any

import torch
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel, set_seed

from clm_core.backend import GenerationJob
from clm_core.causality import GENERATE_PLAINLY
from clm_core.config import SamplingOptions
from clm_core.pretrained import COUNT_FROM_PADDING
from clm_pt.modeling import WITHOUT_CACHE, load, place


def generate(job: GenerationJob) -> list[int]:
    """The ids that follow the prompt, the end-of-sequence token included where it was reached."""
    model = place(load(job.model))
    kind = model.config.model_type
    if not isinstance(model, GenerationMixin):  # As some classes that transformers calls deprecated.
        model.__class__ = type(type(model).__name__, (type(model), GenerationMixin), {})
    prompt = torch.tensor([job.prompt], device=model.device)
    model.generation_config = GenerationConfig(
        max_new_tokens=job.config.max_new_tokens,
        eos_token_id=job.eos_token_id,
        pad_token_id=job.eos_token_id,
        use_cache=kind not in GENERATE_PLAINLY | WITHOUT_CACHE,
        **_sampling(job.config),
    )
    _ask_as_in_training(model)
    set_seed(job.config.seed)
    ids = model.generate(prompt, attention_mask=torch.ones_like(prompt))
    return ids[0, prompt.shape[1] :].tolist()


def _ask_as_in_training(model: PreTrainedModel) -> None:
    """Give a model in generation what it was given in training, where transformers does otherwise."""
    prepare, kind = model.prepare_inputs_for_generation, model.config.model_type
    if kind in GENERATE_PLAINLY:
        model.prepare_inputs_for_generation = lambda input_ids, attention_mask=None, **kwargs: {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
        }
    elif kind in COUNT_FROM_PADDING:

        def prepared(input_ids: torch.Tensor, **kwargs: Any) -> dict[str, Any]:
            inputs = prepare(input_ids, **kwargs)
            inputs.pop("position_ids", None)  # Counted from 0, in transformers 4.57 and 5.
            return inputs

        model.prepare_inputs_for_generation = prepared


def _sampling(config: SamplingOptions) -> dict[str, Any]:
    """What `generate` warns about when it is given without do_sample, only with it."""
    if not config.do_sample:
        return {"do_sample": False}
    return {"do_sample": True, "top_k": config.top_k, "top_p": config.top_p, "temperature": config.temperature}
