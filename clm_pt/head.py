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
    products, logits = _products_and_logits(model, layer)
    output = next((each for each in _outputs(layer, model.config) if _is_made_of(products, each, logits)), None)
    return None if output is None else Head(output)


def _products_and_logits(model: PreTrainedModel, layer: torch.nn.Linear) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The logits that a model makes if its layer gives these products; None if it asks the layer for others."""
    products = torch.linspace(-50.0, 50.0, LENGTH * layer.out_features).reshape(1, LENGTH, -1).to(model.device)
    given: list[torch.Tensor] = []

    def give(module: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        given.append(products.to(output.dtype) if output.shape == products.shape else output)
        return given[-1]

    ids = torch.zeros(products.shape[:2], dtype=torch.int64, device=products.device)
    hook = layer.register_forward_hook(give)
    try:
        with inference(model), torch.random.fork_rng(devices=[]):
            logits: torch.Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    finally:
        hook.remove()
    is_asked_once = len(given) == 1 and given[0].shape == products.shape
    return (given[0], logits) if is_asked_once else (products, None)


def _outputs(layer: torch.nn.Linear, architecture: Any) -> Iterator[Output]:
    """What transformers' classes make of the products, by the fields of the configuration."""
    fields = vars(text_part(architecture))
    caps = [float(fields[name]) for name in CAPS if fields.get(name)]
    factors = [float(fields[name]) for name in FACTORS if fields.get(name)]
    for cap in (None, *caps):
        for scale in (1.0, *factors, *(1 / factor for factor in factors)):
            yield Output(layer, scale, cap)


def _is_made_of(products: torch.Tensor, output: Output, logits: torch.Tensor | None) -> bool:
    """Whether logits are what an output makes of products, by the precision of these."""
    made, exact = output.of(products), products.dtype == torch.float32
    rtol = 1e-6 if exact else 2 * torch.finfo(products.dtype).eps
    return logits is not None and made.shape == logits.shape and torch.allclose(made, logits.float(), rtol, 1e-6)
