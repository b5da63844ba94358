"""The loss of tokens, in training and in evaluation: one definition for every architecture."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, pad
from transformers import PreTrainedModel

from clm_core.backend import ALONE, IGNORED, Blocks, EvaluationJob, Logits, Report, Score, World
from clm_core.config import EvaluationOptions
from clm_core.scoring import score_in_batches
from clm_pt.datasets import collate
from clm_pt.modeling import inference, load, on_device, precision
from clm_pt.processes import agree, gather, meet, together


def score(
    model: PreTrainedModel,
    blocks: Blocks,
    batch_size: int | EvaluationOptions = 8,
    report: Report = lambda event: None,
    *,
    config: EvaluationOptions | None = None,
    world: World = ALONE,
    together: Callable[[], None] = lambda: None,
) -> Score:
    """Score blocks in inference mode, in the order on disk; the model stays in the mode that it is in.

    Options, as `config` or in place of `batch_size`, determine the size of the batches and the `precision`. The
    processes of a `world`, which have met, share the batches out, and get the score of all; each calls `together`
    after each batch.
    """
    size = batch_size if config is None else config
    if isinstance(size, EvaluationOptions):
        with precision(size.bf16):
            return score(model, blocks, size.per_device_eval_batch_size, report, world=world, together=together)
    with inference(model):
        own = score_in_batches(
            blocks, size, report, lambda batch: _score_batch(model, batch), world=world, together=together
        )
    if world.size == 1:
        return own
    losses, correct, tokens = zip(*gather([own.loss_sum, own.correct, own.tokens]), strict=True)
    return Score(loss_sum=math.fsum(losses), correct=int(sum(correct)), tokens=int(sum(tokens)))


def score_together(job: EvaluationJob) -> Score:
    """The score of a job, which other processes have too."""
    with together("evaluate"):
        if job.world.size > 1:
            meet(job)
        model = on_device(load(job.model))
        return score(
            model, job.blocks, report=job.report, config=job.config, world=job.world, together=partial(agree, job)
        )


def logits(model: PreTrainedModel, blocks: Blocks, batch_size: int = 8) -> Logits:
    """What a model predicts after each token of each block, in inference mode."""
    batches = (blocks[start : start + batch_size] for start in range(0, len(blocks), batch_size))
    with inference(model):
        return np.concatenate([_predicted(model, batch)[0].float().cpu().numpy() for batch in batches])


def token_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """The loss of a batch as Trainer wants it: summed over its tokens, divided by the tokens of the whole step.

    So it does not depend on how a step is accumulated, nor on whether a model's own loss would take the divisor.
    """
    loss = cross_entropy(*_logits_and_targets(outputs.logits, labels), ignore_index=IGNORED, reduction="sum")
    return loss / ((labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)


def share_of_step(labels: torch.Tensor, rows: int) -> torch.Tensor:
    """The share of a batch in the blocks of the step that it is a part of, which has so many `rows`."""
    return (labels != IGNORED).any(1).sum() / rows  # In each, a token counts; but for one that stands for no blocks.


def _score_batch(model: PreTrainedModel, blocks: Blocks) -> Score:
    logits, targets = _logits_and_targets(*_predicted(model, blocks))
    counted = targets != IGNORED
    losses = cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")
    return Score(
        loss_sum=losses.double().sum().item(),
        correct=int((logits.argmax(-1) == targets)[counted].sum()),
        tokens=int(counted.sum()),
    )


def _predicted(model: PreTrainedModel, blocks: Blocks) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits of a batch, and its labels."""
    batch = {name: tensor.to(model.device) for name, tensor in collate(blocks).items()}
    labels = batch.pop("labels")
    return model(**batch).logits, labels


def _logits_and_targets(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (tokens, vocabulary) in float32, and for each the id that follows, or IGNORED at the end of a block."""
    # The labels are moved rather than the logits cut, which would copy the largest tensor of all.
    targets = pad(labels, (0, 1), value=IGNORED)[:, 1:]
    return logits.float().flatten(0, 1), targets.flatten()
