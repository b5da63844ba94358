"""The loss of tokens, in training and in evaluation: one definition for every architecture."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from clm_core.backend import ALONE, IGNORED, Blocks, EvaluationJob, Logits, Report, Score, World
from clm_core.config import EvaluationOptions
from clm_core.scoring import score_in_batches
from clm_pt.datasets import collate
from clm_pt.head import Head, head_of
from clm_pt.losses import targets_of, token_losses
from clm_pt.modeling import inference, load_to_use, precision
from clm_pt.processes import agree, gather, meet, together
from clm_pt.products import fastest_products


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
        with precision(size.computes_in_bfloat16):
            return score(model, blocks, size.per_device_eval_batch_size, report, world=world, together=together)
    return score_by(model, head_of(model), blocks, size, report, world=world, together=together)


def score_by(
    model: PreTrainedModel,
    head: Head | None,
    blocks: Blocks,
    size: int,
    report: Report,
    *,
    world: World = ALONE,
    together: Callable[[], None] = lambda: None,
) -> Score:
    """`score` for a model whose head is known."""
    with inference(model):
        score_batch = partial(_score_batch, model, head)
        own = score_in_batches(blocks, size, report, score_batch, world=world, together=together)
    if world.size == 1:
        return own
    losses, correct, tokens = zip(*gather([own.loss_sum, own.correct, own.tokens]), strict=True)
    return Score(loss_sum=math.fsum(losses), correct=int(sum(correct)), tokens=int(sum(tokens)))


@fastest_products()
def score_together(job: EvaluationJob) -> Score:
    """The score of a job, which other processes have too."""
    with together("evaluate"):
        if job.world.size > 1:
            meet(job)
        model = load_to_use(job.model, job.config)
        return score(
            model, job.blocks, report=job.report, config=job.config, world=job.world, together=partial(agree, job)
        )


def logits(model: PreTrainedModel, blocks: Blocks, batch_size: int = 8) -> Logits:
    """What a model predicts after each token of each block, in inference mode."""
    batches = (blocks[start : start + batch_size] for start in range(0, len(blocks), batch_size))
    with inference(model):
        return np.concatenate([_predicted(model, batch).float().cpu().numpy() for batch in batches])


def token_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """The loss of a batch as Trainer wants it: summed over its tokens, divided by the tokens of the whole step.

    So it does not depend on how a step is accumulated, nor on whether a model's own loss would take the divisor.
    """
    logits = outputs.logits.float().flatten(0, 1)  # Not cut, which would copy the largest tensor of all.
    loss = cross_entropy(logits, targets_of(labels).flatten(), ignore_index=IGNORED, reduction="sum")
    return loss / (_tokens(labels) if num_items_in_batch is None else num_items_in_batch)


def loss_and_outputs(
    call: Callable[[], Any], head: Head | None, labels: torch.Tensor, num_items_in_batch: Any = None
) -> tuple[torch.Tensor, Any]:
    """`token_loss` of a batch for which `call` calls the model, and what it returns; a head computes no logits."""
    if head is None:
        outputs = call()
        return token_loss(outputs, labels, num_items_in_batch), outputs
    return head.loss(call, targets_of(labels), _tokens(labels) if num_items_in_batch is None else num_items_in_batch)


def share_of_step(labels: torch.Tensor, rows: int) -> torch.Tensor:
    """The share of a batch in the blocks of its step, which has `rows` blocks."""
    return (labels != IGNORED).any(1).sum() / rows  # In each, a token counts; but for one that stands for no blocks.


def _score_batch(model: PreTrainedModel, head: Head | None, blocks: Blocks) -> Score:
    batch = {name: tensor.to(model.device) for name, tensor in collate(blocks).items()}
    targets, call = targets_of(batch.pop("labels")), partial(model, **batch)
    counted = targets != IGNORED
    if head is None:
        losses, hits = token_losses(call().logits[counted], targets[counted])
    else:
        losses, hits = head.token_losses(call, targets)
    return Score(loss_sum=losses.double().sum().item(), correct=int(hits.sum()), tokens=len(hits))


def _predicted(model: PreTrainedModel, blocks: Blocks) -> torch.Tensor:
    """The logits of a batch."""
    batch = {name: tensor.to(model.device) for name, tensor in collate(blocks).items() if name != "labels"}
    logits: torch.Tensor = model(**batch).logits
    return logits


def _tokens(labels: torch.Tensor) -> torch.Tensor:
    return (labels != IGNORED).sum()
