"""What all optimizers have in common: which parameters decay, clipped gradients, the learning rate of each step."""

from collections.abc import Callable, Iterable

import torch
from torch.optim.lr_scheduler import LambdaLR

from clm_core.models.decay import decays
from clm_core.optimizer import clipping_ratio
from clm_core.schedule import Schedule
from clm_pt.sharding import own_part


def decaying(model: torch.nn.Module) -> list[str]:
    """The names of the parameters that decay, by the rule of every backend.

    Trainer goes by names alone, and takes a RoBERTa-PreLayerNorm for a norm.
    """
    return [name for name, parameter in model.named_parameters() if decays(name, parameter.ndim)]


def give_rate(optimizer: torch.optim.Optimizer, parameters: Iterable[torch.nn.Parameter], rate: float) -> None:
    """Give some parameters of a new optimizer a learning rate of their own, in groups that are else as theirs were."""
    own = set(map(id, parameters))
    for group in list(optimizer.param_groups):
        apart = [parameter for parameter in group["params"] if id(parameter) in own]
        if apart:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in own]
            optimizer.add_param_group({**group, "params": apart, "lr": rate})


@torch.no_grad()
def clip(
    parameters: Iterable[torch.nn.Parameter],
    max_norm: float,
    whole: Callable[[torch.Tensor], torch.Tensor] = lambda squares: squares,
) -> torch.Tensor:
    """Scale gradients to this global norm at most, if it is above 0, and return what the norm was, float64.

    `whole` gets the sum of squares over what this process has of the gradient, and returns that of the whole gradient.
    On a GPU, nothing here waits for it.

    As `torch.nn.utils.clip_grad_norm_`, but summed row by row, and the rows in float64: PyTorch sums all squares of a
    tensor in float32, and is off by 1e-3 where the gradient of an embedding has millions of small ones (2.13, CPU).
    """
    gradients = [own_part(parameter.grad) for parameter in parameters if parameter.grad is not None]
    rows = torch.cat([torch.linalg.vector_norm(gradient, dim=-1).flatten().float() for gradient in gradients])
    rows = rows.cpu() if rows.device.type == "mps" else rows  # Which has no float64.
    norm = whole(rows.double().square().sum()).sqrt()
    factor = clipping_ratio(norm, max_norm).clamp(max=1.0)
    known = float(factor) if factor.device.type == "cpu" else factor
    if max_norm > 0 and (known is factor or known < 1.0):
        torch._foreach_mul_(gradients, known)  # On a GPU, hardly more than one kernel for all, as clip_grad_norm_ does.
    return norm


def create_scheduler(optimizer: torch.optim.Optimizer, schedule: Schedule, first_step: int = 0) -> LambdaLR:
    """The learning rates of a schedule from after `first_step` steps on, for an optimizer that has its highest."""
    return LambdaLR(optimizer, lambda done: schedule.learning_rate_at(first_step + done) / schedule.learning_rate)
