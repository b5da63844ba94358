"""Continues a prompt with a TensorFlow model."""

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
    model.generation_config = GenerationConfig(**job.settings())
    output = model.generate(input_ids, attention_mask=tf.ones_like(input_ids))
    return output[0, len(job.prompt) :].numpy().tolist()
