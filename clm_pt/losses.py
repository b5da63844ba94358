"""The loss of tokens in PyTorch, from the input of the output layer, in chunks of rows: no more logits exist at once.

The gradient of a chunk is made with its loss, so that its logits need not be kept: as in Hsu et al., "Liger Kernel:
Efficient Triton Kernels for LLM Training" (2024), section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, linear, pad

from clm_core.backend import IGNORED
from clm_core.scoring import rows_of_chunk

MORE_ROWS = 2
"""How many times as many rows a chunk has in a training on an accelerator, as each chunk adds to the whole gradient of
the layer's weight: with it, a step of DistilGPT2 on 8x1024 tokens in bfloat16 was a tenth shorter on an H200."""


@dataclass(frozen=True)
class Output:
    """How the logits follow from hidden states: a dense layer, times a factor, and no larger than a soft cap."""

    layer: torch.nn.Linear
    scale: float = 1.0
    cap: float | None = None

    def of(self, products: torch.Tensor) -> torch.Tensor:
        """The float32 logits that the products of the layer become."""
        logits = products.float()
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap

    def back(self, gradient: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """The gradient of the products, from that of the logits that they became; it is changed."""
        if self.cap is not None:
            gradient *= 1.0 - (logits / self.cap) ** 2
        return gradient if self.scale == 1.0 else gradient.mul_(self.scale)


def mean_loss(hidden: torch.Tensor, output: Output, targets: torch.Tensor, tokens: Any) -> torch.Tensor:
    """The negative log likelihood of the targets that count, summed and divided by `tokens`; float32.

    `hidden` is (..., width); `targets`, of as many tokens, have the id that follows each, or IGNORED.
    """
    hidden, targets = hidden.flatten(0, -2), targets.flatten()
    if hidden.device.type == "cpu":  # An accelerator would have to wait until their number is known.
        hidden, targets = hidden[targets != IGNORED], targets[targets != IGNORED]
    loss: torch.Tensor = _MeanLoss.apply(hidden, output.layer.weight, output.layer.bias, output, targets, 1.0 / tokens)
    return loss


def token_losses(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The negative log likelihood of each target, float32, and whether it was ranked first.

    `logits` are (tokens, vocabulary), `targets` (tokens,).
    """
    logits = logits.float()
    return cross_entropy(logits, targets, reduction="none"), logits.argmax(1) == targets


def token_losses_in_chunks(
    hidden: torch.Tensor, output: Output, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same from hidden states, (tokens, width), for which there need be no logits before."""
    found = [
        token_losses(output.of(linear(hidden[part], output.layer.weight, output.layer.bias)), targets[part])
        for part in _chunks(max(len(targets), 1), output)
    ]
    losses, hits = zip(*found, strict=True)
    return torch.cat(losses), torch.cat(hits)


def targets_of(labels: torch.Tensor) -> torch.Tensor:
    """For each token of some blocks the id that follows, or IGNORED at the end; (rows, length)."""
    return pad(labels, (0, 1), value=IGNORED)[:, 1:]


class _MeanLoss(torch.autograd.Function):
    """The loss and, of what needs one, the gradient, in one pass over the chunks."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        output: Output,
        targets: torch.Tensor,
        share: Any,
    ) -> torch.Tensor:
        """`hidden` is (tokens, width), `targets` (tokens,); `share` is that of a token that counts in the mean."""
        dtype = _dtype_of_products(hidden)
        states, matrix, offsets = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        gradients = _Gradients(hidden, weight, bias, ctx.needs_input_grad)
        shares = (targets != IGNORED).float() * share
        losses = torch.zeros_like(shares)
        with torch.autocast(hidden.device.type, enabled=False):
            for part in _chunks(len(targets), output, times=1 if hidden.device.type == "cpu" else MORE_ROWS):
                logits = output.of(linear(states[part], matrix, offsets))
                wanted = targets[part].clamp(min=0).unsqueeze(1)
                likelihoods = torch.log_softmax(logits, 1)
                losses[part] = -likelihoods.gather(1, wanted).squeeze(1)
                if any(ctx.needs_input_grad):
                    of_logits = likelihoods.exp_().scatter_add_(
                        1, wanted, -torch.ones_like(wanted, dtype=torch.float32)
                    )
                    of_products = output.back(of_logits.mul_(shares[part].unsqueeze(1)), logits).to(dtype)
                    gradients.add(part, of_products, states, matrix)
        ctx.gradients = gradients
        return (losses * shares).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients of the forward pass, which are given away: nothing else keeps so large a tensor."""
        found = ctx.gradients.times(gradient)
        del ctx.gradients
        return (*found, None, None, None)


class _Gradients:
    """Those of hidden states, weight and bias, as they grow from chunk to chunk; None of what needs none."""

    def __init__(
        self, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, needed: Sequence[bool]
    ) -> None:
        self.hidden = torch.zeros_like(hidden) if needed[0] else None
        # Sums of many are float32: they are rounded once, to the type of what they are the gradient of.
        self.weight = torch.zeros_like(weight, dtype=torch.float32) if needed[1] else None
        self.bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and needed[2] else None

    def add(self, part: slice, of_products: torch.Tensor, states: torch.Tensor, matrix: torch.Tensor) -> None:
        """Add what follows from the gradient of the products of a chunk."""
        if self.hidden is not None:
            self.hidden[part] = of_products @ matrix
        if self.weight is not None and self.weight.dtype == of_products.dtype:
            self.weight.addmm_(of_products.t(), states[part])
        elif self.weight is not None:
            self.weight += of_products.t() @ states[part]
        if self.bias is not None:
            self.bias += of_products.float().sum(0)

    def times(self, factor: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """All of them, multiplied by the gradient of the loss, which is 1 where nothing follows it."""
        found = (self.hidden, self.weight, self.bias)
        if factor.device.type == "cpu" and factor == 1.0:  # For an accelerator, one would have to wait.
            return found
        return tuple(None if it is None else it.mul_(factor) for it in found)


def _chunks(tokens: int, output: Output, times: int = 1) -> Iterator[slice]:
    rows = times * rows_of_chunk(output.layer.out_features)
    return (slice(start, start + rows) for start in range(0, tokens, rows))


def _dtype_of_products(hidden: torch.Tensor) -> torch.dtype:
    """In what the layer would compute."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
