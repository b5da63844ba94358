"""FSDP2: weights, gradients and moments are cut up over the devices, and made whole one by one to be written."""

import os

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from clm_core.backend import Model
from clm_core.durable.disk_errors import shown
from clm_core.errors import OptionError, first_line
from clm_core.models.parameter_count import count_parameters
from clm_pt.masters import kept_in_float32


def check_memory(model: Model) -> None:
    """Make sure that the processes of this machine can hold a whole model each, as they do before it is cut up.

    Raises:
        OptionError: the weights alone need more than the memory that there is.
    """
    count, processes = count_parameters(model), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    size = (count or 0) * torch.float32.itemsize
    if processes * size > memory:
        raise OptionError(
            f"pt fsdp: each process loads the whole model before it cuts it up, and {processes} of {shown(size)} need "
            f"more than the {shown(memory)} of memory here: start fewer of them here, or use a smaller model"
        )


def check_can_be_sharded(model: PreTrainedModel, *, in_bfloat16: bool = False) -> None:
    """Make sure, before processes meet, that each device can have its part of all parameters, and of their gradients.

    Raises:
        OptionError: a tensor is in two blocks, or of another type than others of its block, or devices may differ in
            what they use in a step.
    """
    if in_bfloat16 and (kept := kept_in_float32(model)):
        raise _not_possible(model, f"dtype bfloat16 leaves {kept[0]} in float32, beside others in bfloat16")
    blocks = _blocks(model)
    owners: dict[int, tuple[str, str]] = {}
    types: dict[str, tuple[str, torch.dtype]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owner = max((block for block in blocks if name.startswith(f"{block}.")), key=len, default="")
        first, where = owners.setdefault(id(parameter), (name, owner))
        if where != owner:
            raise _not_possible(model, f"{first} and {name} are one tensor, in two of its parts")
        if not parameter.requires_grad:
            continue
        first, kind = types.setdefault(owner, (name, parameter.dtype))
        if kind != parameter.dtype:
            raise _not_possible(model, f"{name} is {parameter.dtype}, and {first}, in the same part, is {kind}")
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and name.endswith("experts"):
            raise _not_possible(model, f"a device may leave out some of {name}, which transformers 5 may join")
    for name, rate in vars(model.config).items():
        if "layerdrop" in name and rate:
            raise _not_possible(model, f"{name} {rate} leaves out other layers on each device")


def shard(model: PreTrainedModel, device: torch.device, *, in_bfloat16: bool = False) -> None:
    """Cut the parameters of a model up, each over all processes, which are to meet before; buffers stay whole.

    In a forward or backward pass, a device has those of one block at a time, and those that are in no block: as they
    are, or in bfloat16. What a device has of them, and of their gradients, stays float32.

    Raises:
        OptionError: FSDP2 does not take the model.
    """
    halves = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    policy = halves if in_bfloat16 else MixedPrecisionPolicy()
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    try:
        for module in (*reversed(_blocks(model).values()), model):
            fully_shard(module, mesh=mesh, mp_policy=policy)
    except (ValueError, AssertionError, NotImplementedError) as error:
        raise _not_possible(model, first_line(error)) from error


def free(model: PreTrainedModel) -> None:
    """Drop the whole tensors that a pass without a backward pass leaves, so that a model has its own part again."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """What this process has of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor; of one that is cut up, all processes are to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """A whole tensor, which each process has, of a parameter's type, and cut up and placed as it is."""
    if not isinstance(parameter, DTensor):
        return torch.empty_like(parameter).copy_(tensor)
    placed = tensor.to(parameter.to_local().device, parameter.dtype)
    return distribute_tensor(placed, parameter.device_mesh, parameter.placements, src_data_rank=None)


def whole_weights(model: PreTrainedModel, *, keep: bool) -> dict[str, torch.Tensor]:
    """The tensors of a model by their names, on the CPU; those that are tied are one tensor.

    All processes are to ask for it. One that does not `keep` them has a single whole tensor at a time.
    """
    found: dict[str, torch.Tensor] = {}
    seen: dict[int, torch.Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            made = whole(tensor.detach())
            seen[id(tensor)] = made.cpu() if keep else torch.empty(0)
        found[name] = seen[id(tensor)]
    return found if keep else {}


def _blocks(model: PreTrainedModel) -> dict[str, torch.nn.Module]:
    """Its blocks by their names: transformers names their classes, for the same purpose."""
    kinds = set(model._no_split_modules or ())
    return {name: module for name, module in model.named_modules() if type(module).__name__ in kinds}


def _not_possible(model: PreTrainedModel, why: str) -> OptionError:
    kind = model.config.model_type
    return OptionError(f"pt fsdp: a model of type {kind} cannot be cut up by FSDP2: {why}; train without --pt-fsdp")
