"""Clipping by the global norm, whose sum keeps the digits that PyTorch's own loses in a large embedding."""

import math
from collections.abc import Iterable

import torch


@torch.no_grad()
def clip(parameters: Iterable[torch.nn.Parameter], max_norm: float) -> float:
    """Scale gradients to this global norm at most, if it is above 0, and return what the norm was.

    As `torch.nn.utils.clip_grad_norm_`, but summed row by row, and the rows in float64: PyTorch sums all squares of a
    tensor in float32, and is off by 1e-3 where the gradient of an embedding has millions of small ones (2.13, CPU).
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    rows = [torch.linalg.vector_norm(gradient, dim=-1).flatten().float().cpu() for gradient in gradients]
    norm = math.sqrt(float(torch.cat(rows).double().square().sum()))
    if 0 < max_norm < norm + 1e-6:
        for gradient in gradients:
            gradient.mul_(max_norm / (norm + 1e-6))
    return norm
