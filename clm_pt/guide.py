"""The guide's PyTorch tab as published, with Trainer's own block order, loss, decay and clipping."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import DataCollatorForLanguageModeling, EvalPrediction, Trainer

from clm_core.backend import IGNORED, BatchScored, MaskedBlocks, Score, TrainingJob
from clm_core.data.guide import GuideRows
from clm_core.errors import OptionError
from clm_pt.checkpoints import restore_random, write_random
from clm_pt.datasets import BlockDataset
from clm_pt.trainer import ScheduledTrainer, ShardedState


class GuideTrainer(ScheduledTrainer):
    """Trainer as in the guide's PyTorch tab, with its collator; only when to evaluate and save is the schedule's.

    Its losses are those that the guide's script reports. transformers 4.57 divides them by all tokens of the blocks,
    the first of each included, which nothing predicts.
    """

    def __init__(self, job: TrainingJob) -> None:
        _check_blocks(job)
        rows = GuideRows(job.config)
        collator = DataCollatorForLanguageModeling(tokenizer=rows.tokenizer, mlm=False)
        super().__init__(
            job,
            data_collator=lambda blocks: collator(rows(blocks)),
            compute_loss_func=None,
            compute_metrics=_hits,
            preprocess_logits_for_metrics=_likeliest,
        )
        self.adds = False  # What a model adds is in its own loss, which Trainer takes.

    get_train_dataloader = Trainer.get_train_dataloader
    get_batch_samples = Trainer.get_batch_samples
    get_decay_parameter_names = Trainer.get_decay_parameter_names
    compute_loss = Trainer.compute_loss

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Keep each batch's share of the step's loss, which Trainer would round."""
        loss = super().training_step(*args, **kwargs)
        self.steps.add(loss)
        return loss

    def write_checkpoint(self, folder: Path, state: ShardedState | None = None) -> None:
        """The state of the generators too, since the script seeds once."""
        super().write_checkpoint(folder, state)
        write_random(folder, self.args.device)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if self.job.resume_from is not None:
            restore_random(self.job.resume_from, self.args.device)
        if self.job.evaluation_due:  # It was made before Trainer began; within a training, its loader draws a number.
            next(iter(self.get_eval_dataloader(BlockDataset(self._validation()))))

    def log(self, logs: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """Take the norm of the gradient from Trainer, which clips, and report the step."""
        if "loss" not in logs:
            super().log(logs, *args, **kwargs)
            return
        self.steps.grad_norm = logs.get("grad_norm")
        self.steps.add_up()
        self.report_step()
        if self.job.schedule.logs_at(self.state.global_step):
            super().log(logs, *args, **kwargs)

    def score(self) -> Score:
        """Trainer's evaluation; the one before the first step is not in the guide, and draws no numbers."""
        before = torch.get_rng_state()
        with nullcontext() if self.is_in_train else torch.random.fork_rng(devices=[]):
            try:
                self._metrics = Trainer.evaluate(self, BlockDataset(self._validation()))
            except BaseException:  # It was abandoned, and will be made again.
                torch.set_rng_state(before)
                raise
        tokens = int(self._metrics["eval_tokens"])
        loss_sum, correct = self._metrics["eval_loss"] * tokens, int(self._metrics["eval_correct"])
        return Score(loss_sum=loss_sum, correct=correct, tokens=tokens)

    def tell(self, found: Score) -> dict[str, float]:
        """Nothing more: Trainer has told its callbacks."""
        return self._metrics

    def prediction_step(self, *args: Any, **kwargs: Any) -> Any:
        """Report each batch."""
        found = super().prediction_step(*args, **kwargs)
        self.job.report(BatchScored(blocks=len(found[2])))
        return found


def _check_blocks(job: TrainingJob) -> None:
    schedule = job.schedule
    if isinstance(job.train, MaskedBlocks):
        raise OptionError("pt guide: the labels of the guide's collator are all tokens: give --no-completion-only-loss")
    if schedule.step_blocks % schedule.batch_size:
        raise OptionError(
            f"pt guide: train_batch_size {schedule.step_blocks} is not a multiple of per_device_train_batch_size "
            f"{schedule.batch_size}, and the batches of the guide's Trainer are all of that size"
        )


def _likeliest(logits: Any, labels: torch.Tensor) -> torch.Tensor:
    """What Trainer is to keep of the logits, (batch, block_size); some models give more than logits."""
    return (logits[0] if isinstance(logits, tuple) else logits).argmax(-1)


def _hits(found: EvalPrediction) -> dict[str, int]:
    predicted, labels = found.predictions[:, :-1], found.label_ids[:, 1:]
    return {"tokens": int((labels != IGNORED).sum()), "correct": int((predicted == labels).sum())}
