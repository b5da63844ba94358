"""Losses that a model adds to that of the tokens, such as for the balance of its experts.

It is asked of the model's own forward, so that it is whatever the class computes, times the coefficient of its
configuration.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import transformers
from transformers import PreTrainedModel

from clm_core.backend import Blocks
from clm_core.models.architectures import asks_for_more_loss
from clm_core.models.faults import cannot_add_to_loss
from clm_pt.datasets import collate
from clm_pt.head import Head, head_of
from clm_pt.modeling import inference

LENGTH = 8


def adds_to_loss(model: PreTrainedModel, blocks: Blocks) -> bool:
    """Whether a model, as it is configured, adds to the loss of the tokens of some blocks.

    Raises:
        ModelError: its configuration asks for it, and its class does not do it.
    """
    if _added(model, np.asarray(blocks[:1])[:, :LENGTH]):
        return True
    if asked := asks_for_more_loss(model.config):
        raise cannot_add_to_loss(asked, f"{type(model).__name__} of transformers {transformers.__version__}")
    return False


def head_beside(model: PreTrainedModel, blocks: Blocks) -> Head | None:
    """The head of a model that adds to the loss; None if it makes that of its logits, which a head does not compute."""
    head = head_of(model)
    if head is None:
        return None
    some = np.asarray(blocks[:1])[:, :LENGTH]
    with_logits = _added(model, some)
    with head.without_logits():
        return head if _added(model, some) == with_logits else None


@contextmanager
def only_what_is_added(model: PreTrainedModel, called: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Within it, the `loss` of a model that is called with labels is what it adds, without the loss of the tokens."""

    def nothing(logits: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        called()
        return logits.new_zeros((), dtype=torch.float32)

    model.loss_function = nothing
    try:
        yield
    finally:
        del model._loss_function


def _added(model: PreTrainedModel, blocks: Blocks) -> float:
    """What a model adds; a class that does not leave the loss of the tokens to `loss_function` is taken to add none."""
    calls: list[int] = []
    batch = {name: tensor.to(model.device) for name, tensor in collate(blocks).items()}
    try:
        with inference(model), torch.random.fork_rng(devices=[]), only_what_is_added(model, lambda: calls.append(1)):
            loss = float(model(**batch).loss)
    except Exception:  # Some classes fail with labels of text, and are trained without.
        return 0.0
    return loss if calls else 0.0
