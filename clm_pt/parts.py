"""The parts of a model that a training changes, by the options of every backend; the others need no gradient."""

import copy

import torch
from accelerate import init_empty_weights
from transformers import PreTrainedModel

from clm_core.config import TrainConfig
from clm_core.errors import OptionError
from clm_core.models.file_names import shapes_in_files
from clm_core.models.parts import trained


def trainable_as_new(model: PreTrainedModel) -> PreTrainedModel:
    """The model with what its class does not train, such as computed positions, frozen: from_pretrained forgets it."""
    try:
        with torch.device("meta"):
            new = type(model)(copy.deepcopy(model.config))
    except NotImplementedError:  # A few read numbers of theirs while they are made, and take more time this way.
        with init_empty_weights():
            new = type(model)(copy.deepcopy(model.config))
    frozen = {name for name, parameter in new.named_parameters() if not parameter.requires_grad}
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    return model


def choose(model: PreTrainedModel, options: TrainConfig) -> None:
    """Have a training change what `freeze` and `train_only` leave to it, of what it would change.

    Raises:
        OptionError: they name what is not there, leave nothing, or leave a part of what is one tensor here.
    """
    parameters = {name: it for name, it in model.named_parameters() if it.requires_grad}
    kind = model.config.model_type
    in_files = {name: list(shapes_in_files(name, tuple(it.shape), kind)) for name, it in parameters.items()}
    inputs_and_outputs = [each for name in embeddings(model) for each in in_files.get(name, ())]
    found = trained([each for names in in_files.values() for each in names], options, embeddings=inputs_and_outputs)
    for name, names in in_files.items():
        left = found.intersection(names)
        if left and len(left) < len(names):
            raise OptionError(
                f"freeze and train_only: {min(left)} is to be trained and {min(set(names) - left)} is not, which "
                f"are one tensor in this version of transformers, {name}: choose both or none"
            )
        parameters[name].requires_grad_(bool(left))


def embeddings(model: PreTrainedModel) -> list[str]:
    """The names of the token embeddings, and of the matrix of an output layer that is not tied to them."""
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    found = {id(getattr(layer, "weight", None)) for layer in layers}
    return [name for name, parameter in model.named_parameters() if id(parameter) in found]
