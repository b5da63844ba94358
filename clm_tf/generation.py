"""Continues a prompt with a TensorFlow model."""

import tensorflow as tf
from transformers import GenerationConfig, TFPreTrainedModel

from clm_core.backend import GenerationJob
from clm_tf.modeling import load, precision


def generate(job: GenerationJob) -> list[int]:
    """The ids that follow the prompt, the end-of-sequence token included where it was reached."""
    with precision(bf16=False):
        return _continued(load(job.model), job)


def _continued(model: TFPreTrainedModel, job: GenerationJob) -> list[int]:
    # Not generate's own `seed`, with which every token would be drawn with the same random number.
    tf.random.set_seed(job.config.seed)
    input_ids = tf.constant([job.prompt], tf.int32)
    # The model's own would still say where to end, when the job says that nothing does.
    model.generation_config = GenerationConfig(**job.settings())
    output = model.generate(input_ids, attention_mask=tf.ones_like(input_ids))
    return output[0, len(job.prompt) :].numpy().tolist()
