"""The parts of a model that a training changes, by the options of every backend; the others are as of frozen layers."""

from transformers import TFPreTrainedModel

from clm_core.config import TrainConfig
from clm_core.models.parts import trained
from clm_core.models.unused_weights import OUTPUT
from clm_tf.weights import freeze, pytorch_names


def choose(model: TFPreTrainedModel, options: TrainConfig) -> None:
    """Have a training change what `freeze` and `train_only` leave to it, of what it would change.

    Raises:
        OptionError: they name what is not there, or leave nothing.
    """
    usual = {variable.ref() for variable in model.trainable_variables}
    named = {name: it.ref() for name, it in pytorch_names(model).items() if it.ref() in usual}
    found = trained(named, options, embeddings=embeddings(model))
    freeze(model, {named[name] for name in named.keys() - found})


def embeddings(model: TFPreTrainedModel) -> list[str]:
    """PyTorch's names of the token embeddings, and of the matrix of an output layer that is not tied to them."""
    table = model.get_input_embeddings().weights[0].ref()
    return [name for name, it in pytorch_names(model).items() if it.ref() == table or OUTPUT.search(name)]
