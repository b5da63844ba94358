"""The parts of a model that a training changes, by the options of every backend; the others are not trainable."""

from clm_core.config import PartsOptions
from clm_core.models.parts import trained
from clm_tf.keras3.decoder import Decoder
from clm_tf.keras3.weights import named


def choose(model: Decoder, options: PartsOptions) -> None:
    """Have a training change what `freeze` and `train_only` leave to it, of what it would change.

    Raises:
        OptionError: they name what is not there, or leave nothing.
    """
    variables = {name: variable for name, (variable, _) in named(model).items() if variable.trainable}
    found = trained(variables, options, embeddings=embeddings(model))
    for name in variables.keys() - found:
        variables[name].trainable = False


def embeddings(model: Decoder) -> list[str]:
    """PyTorch's names of the token embeddings, and of the matrix of an output layer that is not tied to them."""
    parts = ["embeddings"] if model.layout.tied else ["embeddings", "head"]
    return [f"{model.layout.names[part]}.weight" for part in parts]
