"""The parts of a model that a training changes, by the options of every backend; the others are as of frozen layers."""

import tensorflow as tf
from transformers import TFPreTrainedModel

from clm_core.config import TrainConfig
from clm_core.models.parts import trained
from clm_core.models.unused_weights import OUTPUT
from clm_tf.weights import pytorch_names


def choose(model: TFPreTrainedModel, options: TrainConfig) -> None:
    """Have a training change what `freeze` and `train_only` leave to it, of what it would change.

    Raises:
        OptionError: they name what is not there, or leave nothing.
    """
    usual = {variable.ref() for variable in model.trainable_variables}
    named = {name: it.ref() for name, it in pytorch_names(model).items() if it.ref() in usual}
    found = trained(named, options, embeddings=embeddings(model))
    frozen = {named[name] for name in named.keys() - found}
    for layer in model._flatten_layers():
        # Keras freezes whole layers; where it keeps a variable says whether it is trained.
        own: list[tf.Variable] = layer._trainable_weights
        layer._non_trainable_weights.extend(it for it in own if it.ref() in frozen)
        own[:] = [it for it in own if it.ref() not in frozen]


def embeddings(model: TFPreTrainedModel) -> list[str]:
    """PyTorch's names of the token embeddings, and of the matrix of an output layer that is not tied to them."""
    table = model.get_input_embeddings().weights[0].ref()
    return [name for name, it in pytorch_names(model).items() if it.ref() == table or OUTPUT.search(name)]
