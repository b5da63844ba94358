"""TensorFlow models: built, filled with weights, given the loss to train on, saved so that PyTorch opens them too."""

import contextlib
import inspect
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from transformers import (
    TF_MODEL_FOR_CAUSAL_LM_MAPPING,
    GenerationConfig,
    TFAutoModelForCausalLM,
    TFPreTrainedModel,
)

from clm_core.backend import Model
from clm_core.errors import ModelError, OptionError
from clm_core.models.causality import check_causal
from clm_core.models.configurations import existing_model
from clm_core.models.faults import cannot_build
from clm_core.models.ignored_fields import attention
from clm_core.models.model_folder import complete
from clm_core.models.quantization import check_quantization
from clm_core.weights import save as save_weights
from clm_tf import adapters, weights
from clm_tf.accumulation import NextToken, step_in_batches
from clm_tf.repairs import CLASSES, stop_at_padding

WITHOUT_BF16 = {"ctrl", "mistral"}
HEAD = re.compile(r"(lm_head|decoder)\.weight$")
"""PyTorch's name of an output layer that is not the input embeddings."""


def load(model: Model | str | os.PathLike[str]) -> TFPreTrainedModel:
    """Build the model in the current Keras precision policy; its weights are float32 in every policy.

    From a folder or a name on the Hub, `load("runs/products")`, or from a `Model`, with a revision and a seed.
    The loss that it computes from `labels` is float32 too, and each of its dropout layers draws from
    a separate generator, seeded with `model.seed`; `StepSeeds` seeds them anew before each step. Its `fit` computes a
    step of `training_dataset` in batches, as `step_in_batches` says.

    Raises:
        ModelError: there is no TensorFlow class, it ignores a field, or the weights are not readable or not all used.
    """
    model = existing_model(model)
    attention(model.architecture, "tf")
    check_quantization(model.architecture, "tf")
    keras.utils.set_random_seed(model.seed)
    with _own_random_generators():
        built = _build(model)
    if model.name_or_path is None:
        weights.draw(built, model.seed)
    else:
        weights.fill(built, model)
        # A checkpoint need not have it, and then the configuration says how to generate.
        with contextlib.suppress(OSError):
            built.generation_config = GenerationConfig.from_pretrained(model.name_or_path, revision=model.revision)
    if model.adapter:
        with _own_random_generators():
            adapters.attach(built, model)
        adapters.fill(built, model)
    generators = _dropout_generators(built)
    for generator, key in zip(generators, _keys(model.seed, len(generators)), strict=True):
        generator.reset_from_key_counter(key, [0, 0])
    built.hf_compute_loss = NextToken(built.hf_compute_loss)
    check_causal(
        lambda ids: tf.cast(built(ids, training=False, return_dict=True).logits, tf.float32).numpy(), built.config
    )
    return step_in_batches(built)


def save(model: TFPreTrainedModel, folder: str | os.PathLike[str], tokenizer: Any = None) -> None:
    """Write `model.safetensors` in PyTorch's layout, config.json and generation_config.json, and check the weights.

    Of a model with an adapter, this is written in peft's layout, in place of the model's weights. The folder is created
    if missing. The tokenizer is saved with the model, if one is given.

    Raises:
        OutputError: what is on disk differs from the model.
    """
    folder = Path(folder)
    if adapters.of(model):
        adapters.write(model, folder)
    else:
        save_weights(weights.exported(model), model.config, folder, generation_config=model.generation_config)
    if tokenizer is not None:
        complete(folder, tokenizer, model.config)


def seeder(model: TFPreTrainedModel) -> Callable[[int], None]:
    """A function that seeds all dropout of a model loaded here, whatever its generators have drawn before."""
    states = [generator.state for generator in _dropout_generators(model)]
    keys = np.array(_keys(0, len(states)), np.int64)

    @tf.function(input_signature=[tf.TensorSpec((), tf.int64)])
    def seed_all(seed: tf.Tensor) -> None:
        # Philox: two words of its counter, of which drawing counts up the first, and the key.
        for state, key in zip(states, keys, strict=True):
            state.assign(tf.stack([tf.zeros_like(seed), seed, tf.constant(key)]))

    return lambda seed: seed_all(tf.constant(seed, tf.int64))


@contextlib.contextmanager
def precision(bf16: bool) -> Iterator[None]:
    """Build models that compute in bfloat16 if `bf16`, otherwise in float32; restores TensorFlow's settings.

    Float32 is meant whole: on a GPU, TensorFlow would round the factors of products to TensorFloat-32, and PyTorch not.
    """
    before, rounds = keras.mixed_precision.global_policy(), tf.config.experimental.tensor_float_32_execution_enabled()
    keras.mixed_precision.set_global_policy("mixed_bfloat16" if bf16 else "float32")
    tf.config.experimental.enable_tensor_float_32_execution(bf16)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)
        tf.config.experimental.enable_tensor_float_32_execution(rounds)


def _dropout_generators(model: TFPreTrainedModel) -> list[tf.random.Generator]:
    """The generators that a model loaded here draws its dropout from, in the order of its layers."""
    wrappers = [layer._random_generator for layer in model._flatten_layers() if hasattr(layer, "_random_generator")]
    for wrapper in wrappers:
        wrapper._maybe_init()
    return [wrapper._generator for wrapper in wrappers]


def _keys(seed: int, count: int) -> list[int]:
    """A key for each layer: with equal ones and different counters, layers would repeat each other's numbers."""
    sequences = (np.random.SeedSequence([seed, index]) for index in range(count))
    return [int(sequence.generate_state(1, np.uint64).astype(np.int64)[0]) for sequence in sequences]


def _build(model: Model) -> TFPreTrainedModel:
    kind = model.architecture.model_type
    if type(model.architecture) not in TF_MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(
            f"model type {kind}: transformers has no TensorFlow class for it; another backend may have one"
        )
    try:
        own = CLASSES.get(kind)
        built = own(model.architecture) if own else TFAutoModelForCausalLM.from_config(model.architecture)
        built.build_in_name_scope()
        stop_at_padding(built)
    except Exception as error:  # A class may raise anything about what it has not, or numbers that do not fit together.
        raise cannot_build(model.architecture, error) from error
    if not _predicts_next_token(built):
        raise ModelError(
            f"model type {kind}: its TensorFlow class cannot generate, or has no next-token loss; "
            "another backend may do both"
        )
    if kind in WITHOUT_BF16 and keras.mixed_precision.global_policy().compute_dtype == "bfloat16":
        raise OptionError(
            f"bf16: transformers' TensorFlow class for {kind} mixes it with float32 and fails: leave it out"
        )
    tied = not any(HEAD.search(name) for name in weights.pytorch_names(built))
    if tied != model.architecture.tie_word_embeddings:
        raise ModelError(
            f"tie_word_embeddings {str(not tied).lower()}: {type(built).__name__} {'never' if tied else 'always'} "
            "has separate output weights; another backend may support both"
        )
    return built


def _predicts_next_token(model: TFPreTrainedModel) -> bool:
    has_loss = hasattr(model, "hf_compute_loss") and "labels" in inspect.signature(model.call).parameters
    return has_loss and model.can_generate()


@contextlib.contextmanager
def _own_random_generators() -> Iterator[None]:
    """Give every dropout layer built inside a generator whose state can be saved and restored."""
    experimental = keras.backend.experimental
    before = experimental.is_tf_random_generator_enabled()
    experimental.enable_tf_random_generator()
    try:
        yield
    finally:
        if not before:
            experimental.disable_tf_random_generator()
