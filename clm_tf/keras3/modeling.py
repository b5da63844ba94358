"""Decoders: built for a configuration, filled with weights, saved so that PyTorch opens them too."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from clm_core.backend import Model
from clm_core.config import DtypeOptions, EvaluationOptions
from clm_core.errors import ModelError
from clm_core.models.configurations import existing_model
from clm_core.models.model_folder import complete
from clm_core.models.quantization import check_quantization
from clm_core.weights import save as save_weights
from clm_tf.keras3 import adapters, masters, weights
from clm_tf.keras3.decoder import Decoder
from clm_tf.keras3.families import fields_of, layout


def load(model: Model | str | os.PathLike[str]) -> Decoder:
    """Build the model in Keras' dtype policy and fill it; its weights are float32 in every policy of a mixed type.

    From a folder or a name on the Hub, `load("runs/products")`, or from a `Model`, with a revision and a seed. It is a
    `keras.Model`: compile it with `create_optimizer` and `NextToken`, or with what you like. What its own `save` wrote,
    `load("mine.keras")`, comes back in its own dtype policy, and compiled if it was.

    Raises:
        ModelError: there is no layout for it, a field says what is not known, or the weights are not readable or not
            all used.
    """
    if isinstance(model, str | os.PathLike) and (file := Path(model)).suffix == ".keras" and file.is_file():
        return _of_file(file)
    model = existing_model(model)
    check_quantization(model.architecture, "keras")
    layout(model.architecture)
    decoder = Decoder(fields_of(model.architecture), seed=model.seed, adapter=adapters.fields_of(model))
    weights.fill(decoder, model)
    if model.adapter:
        adapters.fill(decoder, model)
    if model.name_or_path is not None:
        decoder.generation_config = _generation_config(model)
    return decoder


def save(model: Decoder, folder: str | os.PathLike[str], tokenizer: Any = None) -> None:
    """Write `model.safetensors` in PyTorch's layout, config.json and generation_config.json, and check the weights.

    Of a model with an adapter, this is written in peft's layout, in place of the model's weights. The folder is created
    if missing. The tokenizer is saved with the model, if one is given.

    Raises:
        OutputError: what is on disk differs from the model.
    """
    folder, config = Path(folder), configuration(model)
    if adapters.of(model):
        adapters.write(model, folder)
    else:
        save_weights(masters.exported(model), config, folder, generation_config=model.generation_config)
    if tokenizer is not None:
        complete(folder, tokenizer, config)


def seeder(model: Decoder) -> Callable[[int], None]:
    """A function that seeds all dropout of a model, whatever it was trained on before."""
    return model.batches.assign


def configuration(model: Decoder) -> Any:
    """The `transformers.PretrainedConfig` of a model."""
    return model.configuration


@contextlib.contextmanager
def precision(bf16: bool) -> Iterator[None]:
    """Build models that compute in bfloat16 if `bf16`, otherwise in float32; restores the settings.

    Float32 is meant whole: on a GPU, TensorFlow would round the factors of products to TensorFloat-32, and PyTorch not.
    """
    with _in_policy("mixed_bfloat16" if bf16 else "float32", rounds=bf16):
        yield


@contextlib.contextmanager
def precision_of(options: DtypeOptions) -> Iterator[None]:
    """Build models with weights as the options say, that compute as they say; restores the settings."""
    if options.has_bfloat16_weights:
        with _in_policy("bfloat16", rounds=True):
            yield
    else:
        with precision(isinstance(options, EvaluationOptions) and options.bf16):
            yield


@contextlib.contextmanager
def _in_policy(policy: str, *, rounds: bool) -> Iterator[None]:
    before, rounded = keras.config.dtype_policy(), tf.config.experimental.tensor_float_32_execution_enabled()
    keras.config.set_dtype_policy(policy)
    tf.config.experimental.enable_tensor_float_32_execution(rounds)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
        tf.config.experimental.enable_tensor_float_32_execution(rounded)


def _of_file(file: Path) -> Decoder:
    try:
        found = keras.saving.load_model(file)
    except (OSError, TypeError, ValueError, KeyError) as error:
        raise ModelError(f"{file} cannot be read as a file of Keras: {error}") from error
    if not isinstance(found, Decoder):
        raise ModelError(f"{file} holds a {type(found).__name__}, not a decoder of backend keras")
    return found


def _generation_config(model: Model) -> Any:
    """A checkpoint need not have it, and then the configuration says how to generate."""
    from transformers import GenerationConfig

    with contextlib.suppress(OSError):
        return GenerationConfig.from_pretrained(model.name_or_path, revision=model.revision)
    return None
