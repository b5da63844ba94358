"""LoRA in PyTorch, by peft: a base gets the layers of its adapter, and the adapter's tensors are read and written."""

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from clm_core.adapters import Placement, adapter_weights, place, save_adapter
from clm_core.backend import Model
from clm_core.errors import ModelError, first_line
from clm_core.models.faults import usable
from clm_pt.sharding import whole

NAME = "default"
"""What peft calls the one adapter of a model."""

IN_PEFT = re.compile(rf"(?:(?<=\.lora_[AB])\.{NAME}(?=\.weight$)|\.modules_to_save\.{NAME}(?=\.))")
"""What peft puts into the name of an adapter's tensor, beside what the tensor is called in files."""


def attach(base: PreTrainedModel, model: Model) -> None:
    """Give the model that was loaded from `model` its adapter; what is not the adapter's is not trained from then on.

    Raises:
        OptionError: the adapter is new, and cannot be for this model.
        ModelError: its file is not that of an adapter of this model.
        BackendError: peft, or a package that it uses, is missing, or does not go with the others here.
    """
    with usable("peft"):
        from peft import LoraConfig, inject_adapter_in_model

    adapter = model.adapter
    assert adapter is not None
    placement = placed(base, model)
    settings = LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        use_rslora=adapter.use_rslora,
        target_modules=list(placement.targets),
        modules_to_save=list(placement.whole) or None,
        task_type="CAUSAL_LM",
    )
    weights = adapter_weights(model, placement.shapes)
    base.requires_grad_(False)
    with warnings.catch_warnings(), usable("peft"):  # It looks at other packages only now.
        warnings.simplefilter("ignore")  # Of layers that keep their weight as (in, out), which it finds out itself.
        try:
            inject_adapter_in_model(settings, base, NAME)
        except ValueError as error:
            raise ModelError(
                f"peft cannot give a {base.config.model_type} this adapter: {first_line(error)}"
            ) from error
    found = parameters(base)
    if different := sorted(found.keys() ^ placement.shapes.keys()):
        raise ModelError(f"peft gives a {base.config.model_type} another adapter: only one of them has {different[0]}")
    for name, array in weights.items():
        found[name].data = torch.tensor(array)  # Whatever type the base has.
    base.adapted = model


def placed(base: PreTrainedModel, model: Model) -> Placement:
    """Where the adapter of a model has its tensors in the model that was loaded for it.

    Raises:
        OptionError: the adapter is new, and cannot be for this model.
        ModelError: it was read, and is one of another model.
    """
    names = {module: name for name, module in base.named_modules()}
    linear = {name: sizes for name, module in base.named_modules() if (sizes := _sizes(module))}
    shapes = {name: tuple(parameter.shape) for name, parameter in base.named_parameters(remove_duplicate=False)}
    output = base.get_output_embeddings()
    return place(model, linear, shapes, output=names.get(output), tied=[*_tied(base)])


def of(model: PreTrainedModel) -> Model | None:
    """The adapter of a model, with its base, as it was loaded; None if it has none."""
    found: Model | None = getattr(model, "adapted", None)
    return found


def parameters(model: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    """The parameters that are trained, by their names in files; of a model with an adapter, those of the adapter."""
    return {IN_PEFT.sub("", name): it for name, it in model.named_parameters() if it.requires_grad}


def tensors(model: PreTrainedModel, *, keep: bool = True) -> dict[str, torch.Tensor]:
    """The tensors of an adapter by their names, on the CPU; of a model that is sharded, all processes are to ask."""
    found = {name: whole(parameter.detach()) for name, parameter in parameters(model).items()}
    return {name: tensor.float().cpu() for name, tensor in found.items()} if keep else {}


def save(model: PreTrainedModel, folder: Path, weights: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write the adapter of a model as peft reads it; `weights` are its tensors where the model is sharded.

    Raises:
        OutputError: what was read back differs from what was written.
    """
    described = of(model)
    assert described is not None
    arrays = {name: it.numpy() for name, it in (tensors(model) if weights is None else weights).items()}
    save_adapter(arrays, described, folder, generation_config=model.generation_config)


def _sizes(module: torch.nn.Module) -> tuple[int, int] | None:
    """What a dense layer takes in and gives out; None of any other."""
    if isinstance(module, Conv1D):
        return int(module.weight.shape[0]), int(module.weight.shape[1])
    return (module.in_features, module.out_features) if isinstance(module, torch.nn.Linear) else None


def _tied(base: PreTrainedModel) -> Iterator[str]:
    """The modules whose weight is another's too."""
    owners: dict[int, list[str]] = {}
    for name, parameter in base.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name.rpartition(".")[0])
    return (module for modules in owners.values() if len(modules) > 1 for module in modules)
