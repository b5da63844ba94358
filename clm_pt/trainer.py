"""transformers' Trainer on clm's schedule: block order, reported losses, checkpoints."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer

from clm_core.backend import Blocks, Evaluated, Score, StepDone, TrainingJob
from clm_core.checkpoints import save
from clm_pt import checkpoints
from clm_pt.arguments import training_arguments
from clm_pt.auxiliary import adds_to_loss, only_what_is_added
from clm_pt.datasets import BlockDataset, EpochBatches, collate
from clm_pt.modeling import load, precision
from clm_pt.optimization import create_scheduler, decaying
from clm_pt.scoring import score, share_of_step, token_loss


class ScheduledTrainer(Trainer):
    """A Trainer that takes the order of the blocks from the schedule, and reports to the job."""

    control: Any  # Set by Trainer.
    lr_scheduler: LambdaLR | None

    def __init__(self, job: TrainingJob, **changes: Any) -> None:
        self.job = job
        self.grad_norm: float | None = None
        """Of the last step, before clipping."""
        self.losses: list[Any] = []
        """Of each batch of the step: its share of the step's loss."""
        self.added: list[Any] = []
        """The same of what the model adds to the loss, such as for the balance of its experts."""
        model = _aligned(_trainable_as_new(load(job.source)))
        self._uses_cache = getattr(model.config, "use_cache", None)
        self.adds = adds_to_loss(model, job.train)
        super().__init__(
            args=training_arguments(job),
            model=model,
            train_dataset=BlockDataset(job.train),
            **{"data_collator": collate, "compute_loss_func": token_loss, **changes},
        )
        self.state.global_step = job.first_step

    @contextmanager
    def own_cache(self) -> Iterator[None]:
        """Give the model its own `use_cache`, to be saved with it; Trainer of transformers 5 sets its own for all."""
        config = self.accelerator.unwrap_model(self.model).config
        trained_with = vars(config).pop("use_cache", None)
        if self._uses_cache is not None:
            config.use_cache = self._uses_cache
        try:
            yield
        finally:
            if trained_with is not None:
                config.use_cache = trained_with

    def _save(self, *args: Any, **kwargs: Any) -> None:
        with self.own_cache():
            super()._save(*args, **kwargs)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The batches of the schedule, epoch after epoch."""
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=EpochBatches(self.job.schedule),
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """The learning rates of the schedule, from the job's first step on."""
        if self.lr_scheduler is None:
            self.lr_scheduler = create_scheduler(optimizer or self.optimizer, self.job.schedule, self.job.first_step)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """By the rule of every backend."""
        return decaying(model)

    def write_checkpoint(self, folder: Path) -> None:
        """Write the model and its optimizer into a folder."""
        with self.own_cache():
            self._whole_model().save_pretrained(folder)
        checkpoints.write(folder, self._whole_model(), self.optimizer)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Write a checkpoint, in the format of all backends, where Trainer would write its own."""
        save(self.job, self.state.global_step, self.write_checkpoint)

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the model has the checkpoint's weights already. Trainer would continue if some were missing.

        It also reads the configuration as one of no architecture, and fails in that of some (transformers 5).
        """

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Take the moments from the job's checkpoint, and everything else from the job."""
        if checkpoint is not None and self.job.resume_from is not None:
            checkpoints.restore(self.job.resume_from, self._whole_model(), self.optimizer)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing: what a step draws at random follows from the seed and the step."""

    def _validation(self) -> Blocks:
        if self.job.validation is None:
            raise ValueError("the job has no validation blocks to evaluate on")
        return self.job.validation

    def _whole_model(self) -> PreTrainedModel:
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of a batch, and what the model adds to it, weighted by the batch's share of the step's tokens.

        Both are kept as they are, because Trainer would round them.
        """
        if not self.adds:
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
            self.losses.append(loss.detach())
            return (loss, outputs) if return_outputs else loss
        with only_what_is_added(self.accelerator.unwrap_model(model, keep_torch_compile=False)):
            outputs = model(**inputs)
        loss = token_loss(outputs, inputs["labels"], num_items_in_batch)
        added = outputs.loss * share_of_step(inputs["labels"], num_items_in_batch)
        self.losses.append(loss.detach())
        self.added.append(added.detach())
        return (loss + added, outputs) if return_outputs else loss + added

    def log(self, logs: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """Report a step, which Trainer is made to log each time; its own callbacks hear of it where it is scheduled."""
        if "loss" not in logs:
            super().log(logs, *args, **kwargs)
            return
        step = self.state.global_step
        logs["loss"] = math.fsum(map(float, self.losses))
        added = math.fsum(map(float, self.added)) if self.adds else None
        self.losses.clear()
        self.added.clear()
        logs["grad_norm"] = self.grad_norm
        self.job.report(StepDone(step=step, loss=logs["loss"], grad_norm=self.grad_norm, auxiliary_loss=added))
        # Now that it is known whether the training is to stop.
        self.control.should_evaluate, self.control.should_save = self.job.evaluates_at(step), self.job.saves_at(step)
        if self.job.schedule.logs_at(step):
            super().log(logs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score the validation split, each token counting once; Trainer's own score is a mean of means."""
        found = self.score()
        self.job.report(Evaluated(step=self.state.global_step, score=found))
        return self.tell(found)

    def evaluate_if_due(self) -> dict[str, float]:
        """The same where the job says so; it may be abandoned, and a checkpoint be due, if the training is to stop."""
        found = self.job.evaluate(self.state.global_step, self.score)
        self.control.should_evaluate = False
        self.control.should_save = self.job.saves_at(self.state.global_step)
        return self.tell(found) if found else {}

    def score(self) -> Score:
        """The score of the model on the validation split; the job hears of each batch."""
        model, config = self.accelerator.unwrap_model(self.model), self.job.config
        with precision(config.bf16):
            return score(model, self._validation(), config.per_device_eval_batch_size, self.job.report)

    def tell(self, found: Score) -> dict[str, float]:
        """Tell Trainer's callbacks a score, and return it as Trainer would."""
        metrics = {"eval_loss": found.loss}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """What Trainer calls within a training."""
        return self.evaluate_if_due()


def _trainable_as_new(model: PreTrainedModel) -> PreTrainedModel:
    """The model with what its class does not train, such as computed positions, frozen: from_pretrained forgets it."""
    try:
        with torch.device("meta"):
            new = type(model)(copy.deepcopy(model.config))
    except NotImplementedError:  # A few read numbers of theirs while they are made, and take more time this way.
        with init_empty_weights():
            new = type(model)(copy.deepcopy(model.config))
    frozen = {name for name, parameter in new.named_parameters() if not parameter.requires_grad}
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    return model


def _aligned(model: PreTrainedModel) -> PreTrainedModel:
    """The model with its own tensors; those read are in the mapped file, where they start at any byte.

    How a matrix product is rounded depends on that, so a resumed training would diverge from an uninterrupted one.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model
