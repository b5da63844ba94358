"""The loss of tokens, in training and in evaluation: one definition for every architecture."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, pad
from transformers import PreTrainedModel

from clm_core.backend import Blocks, Logits, Report, Score
from clm_core.config import EvaluationOptions
from clm_core.scoring import score_in_batches
from clm_pt.datasets import IGNORED, collate


def token_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """The loss of a batch as Trainer wants it: summed over its tokens, divided by the tokens of the whole step.

    So it does not depend on how a step is accumulated, nor on whether a model's own loss would take the divisor.
    """
    loss = cross_entropy(*_logits_and_targets(outputs.logits, labels), ignore_index=IGNORED, reduction="sum")
    return loss / ((labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)


def share_of_step(labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor | float:
    """The share of a batch in the tokens of the step that it is a part of."""
    return 1.0 if num_items_in_batch is None else (labels != IGNORED).sum() / num_items_in_batch


@torch.no_grad()
def score(model: PreTrainedModel, blocks: Blocks, config: EvaluationOptions, report: Report) -> Score:
    """Score blocks in inference mode, and leave the model in the mode that it was in."""
    training = model.training
    model.eval()
    found = score_in_batches(
        blocks,
        config.per_device_eval_batch_size,
        report,
        lambda batch: _score_batch(model, collate(batch), bf16=config.bf16),
    )
    model.train(training)
    return found


@torch.no_grad()
def logits(model: PreTrainedModel, blocks: Blocks, config: EvaluationOptions) -> Logits:
    """What a model in inference mode predicts, after each token of each block."""
    parts = []
    for start in range(0, len(blocks), config.per_device_eval_batch_size):
        batch = collate(blocks[start : start + config.per_device_eval_batch_size])
        inputs = {name: tensor.to(model.device) for name, tensor in batch.items() if name != "labels"}
        with _autocast(model.device.type, config.bf16):
            parts.append(model(**inputs).logits.float().cpu().numpy())
    return np.concatenate(parts)


def _score_batch(model: PreTrainedModel, batch: dict[str, torch.Tensor], *, bf16: bool) -> Score:
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    labels = batch.pop("labels")
    with _autocast(model.device.type, bf16):
        logits, targets = _logits_and_targets(model(**batch).logits, labels)
    counted = targets != IGNORED
    losses = cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")
    return Score(
        loss_sum=losses.double().sum().item(),
        correct=int((logits.argmax(-1) == targets)[counted].sum()),
        tokens=int(counted.sum()),
    )


def _logits_and_targets(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (tokens, vocabulary) in float32, and for each the id that follows, or IGNORED at the end of a block."""
    # The labels are moved rather than the logits cut, which would copy the largest tensor of all.
    targets = pad(labels, (0, 1), value=IGNORED)[:, 1:]
    return logits.float().flatten(0, 1), targets.flatten()


def _autocast(device: str, bf16: bool) -> AbstractContextManager:
    return torch.autocast(device, torch.bfloat16) if bf16 else nullcontext()
