"""Continues a prompt with a TensorFlow model."""

from typing import Any

import tensorflow as tf
from transformers import GenerationConfig

from clm_core.backend import GenerationJob
from clm_tf.modeling import load


def generate(job: GenerationJob) -> list[int]:
    """The tokens that follow the prompt."""
    model = load(job.model)
    # Not generate's own `seed`, with which every token would be drawn with the same random number.
    tf.random.set_seed(job.config.seed)
    input_ids = tf.constant([job.prompt], tf.int32)
    # The model's own would still say where to end, when the job says that nothing does.
    model.generation_config = _settings(job)
    output = model.generate(input_ids, attention_mask=tf.ones_like(input_ids))
    return output[0, len(job.prompt) :].numpy().tolist()


def _settings(job: GenerationJob) -> GenerationConfig:
    """All from the job, whatever the model's generation_config.json says."""
    config = job.config
    sampling: dict[str, Any] = {}
    if config.do_sample:
        sampling = {"top_k": config.top_k, "top_p": config.top_p, "temperature": config.temperature}
    return GenerationConfig(
        max_new_tokens=config.max_new_tokens,
        do_sample=config.do_sample,
        eos_token_id=list(job.eos_token_ids) or None,
        # Nothing is padded in a batch of one, but without it transformers says which token it took.
        pad_token_id=job.eos_token_id or 0,
        **sampling,
    )
