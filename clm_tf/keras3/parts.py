"""The parts of a model that a training changes, by the options of every backend; the others are not trainable."""

from typing import Any

from clm_core.config import TrainConfig
from clm_core.models.parts import trained
from clm_tf.keras3.decoder import Decoder
from clm_tf.keras3.weights import named


def choose(model: Decoder, options: TrainConfig) -> None:
    """Have a training change what `freeze` and `train_only` leave to it, of what it would change.

    Raises:
        OptionError: they name what is not there, or leave nothing.
    """
    variables = {name: variable for name, (variable, _) in named(model).items() if variable.trainable}
    found = trained(variables, options, embeddings=embeddings(model))
    for name in variables.keys() - found:
        variables[name].trainable = False


def is_embeddings(variable: Any) -> bool:
    """Whether a variable of a decoder is the token embeddings, or the matrix of an output layer of its own."""
    return variable.path in ("embeddings/embeddings", "head/kernel")


def embeddings(model: Decoder) -> list[str]:
    """PyTorch's names of the token embeddings, and of the matrix of an output layer that is not tied to them."""
    return [name for name, (variable, _) in named(model).items() if is_embeddings(variable)]
