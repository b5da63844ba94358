"""The output layer of a model, which scores labels in chunks where it is asked to, in place of giving logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from clm_core.backend import IGNORED
from clm_core.models.architectures import text_part
from clm_pt.losses import Output, mean_loss, token_losses_in_chunks
from clm_pt.modeling import inference

LENGTH = 8
"""Tokens by which a model is asked whether its logits follow from its output layer alone."""

CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""What configurations call the soft cap of the logits."""

FACTORS = ("logit_scale", "logits_scaling", "lm_head_multiplier")
"""What they call what the products are multiplied by, or divided by."""


class Head:
    """The output layer of a model, whose logits are never all there where the model is called through it."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._score: Callable[[torch.Tensor], torch.Tensor] = lambda hidden: hidden
        self._forward = torch.compiler.disable(lambda hidden: self._score(hidden))

    def loss(self, call: Callable[[], Any], targets: torch.Tensor, tokens: Any) -> tuple[torch.Tensor, Any]:
        """`losses.mean_loss` of a batch for which `call` calls the model; and what it returns, without its logits."""
        found: list[torch.Tensor] = []

        def score(hidden: torch.Tensor) -> torch.Tensor:
            found.append(mean_loss(hidden, self._output, targets, tokens))
            return found[0].expand(*hidden.shape[:-1], 1).clone()  # FSDP2 warns of a view.

        with self.without_logits(score):
            outputs = call()
        (loss,) = found
        return loss, outputs

    def token_losses(self, call: Callable[[], Any], targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`losses.token_losses` of the targets that count, of a batch for which `call` calls the model."""
        found: list[tuple[torch.Tensor, torch.Tensor]] = []
        counted = targets != IGNORED

        def score(hidden: torch.Tensor) -> torch.Tensor:
            found.append(token_losses_in_chunks(hidden[counted], self._output, targets[counted]))
            return hidden[..., :1]

        with self.without_logits(score):
            call()
        ((losses, hits),) = found
        return losses, hits

    @contextmanager
    def without_logits(self, score: Callable[[torch.Tensor], torch.Tensor] = lambda hidden: hidden) -> Iterator[None]:
        """Have the layer give what `score` makes of hidden states, within the model's own forward pass.

        There FSDP2 has all of its weight, and DistributedDataParallel looks for what the outputs depend on.
        """
        self._score = score
        vars(self._output.layer)["forward"] = self._forward
        try:
            yield
        finally:
            del vars(self._output.layer)["forward"]


def head_of(model: PreTrainedModel) -> Head | None:
    """The head of a model; None if it makes something else of its output layer's products than an `Output` does."""
    layer = model.get_output_embeddings()
    if type(layer) is not torch.nn.Linear:  # Such as one with an adapter.
        return None
    products = torch.linspace(-50.0, 50.0, LENGTH * layer.out_features).reshape(1, LENGTH, -1).to(model.device)
    logits = _made_of(model, layer, products)
    output = next((each for each in _outputs(layer, model.config) if _is_close(each.of(products), logits)), None)
    return None if output is None else Head(output)


def _made_of(model: PreTrainedModel, layer: torch.nn.Linear, products: torch.Tensor) -> torch.Tensor | None:
    """The logits that a model makes if its layer gives these products; None if it asks the layer for others."""
    asked: list[torch.Size] = []

    def give(module: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        asked.append(output.shape)
        return products.to(output.dtype)

    ids = torch.zeros(products.shape[:2], dtype=torch.int64, device=products.device)
    hook = layer.register_forward_hook(give)
    try:
        with inference(model), torch.random.fork_rng(devices=[]):
            logits: torch.Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    finally:
        hook.remove()
    return logits if asked == [products.shape] else None


def _outputs(layer: torch.nn.Linear, architecture: Any) -> Iterator[Output]:
    """What transformers' classes make of the products, by the fields of the configuration."""
    fields = vars(text_part(architecture))
    caps = [float(fields[name]) for name in CAPS if fields.get(name)]
    factors = [float(fields[name]) for name in FACTORS if fields.get(name)]
    for cap in (None, *caps):
        for scale in (1.0, *factors, *(1 / factor for factor in factors)):
            yield Output(layer, scale, cap)


def _is_close(one: torch.Tensor, other: torch.Tensor | None) -> bool:
    return other is not None and one.shape == other.shape and torch.allclose(one, other.float(), rtol=1e-6, atol=1e-6)
