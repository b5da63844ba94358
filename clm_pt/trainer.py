"""transformers' Trainer on clm's schedule: block order, reported losses, checkpoints."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer

from clm_core.backend import IGNORED, Blocks, Evaluated, MaskedBlocks, Saved, Score, TrainingJob
from clm_core.checkpoints import PREFIX
from clm_core.checkpoints import save as save_checkpoint
from clm_core.optimizer import is_adamw
from clm_pt import adapters, checkpoints, masters, parts
from clm_pt.arguments import training_arguments
from clm_pt.attention import choose_attention
from clm_pt.auxiliary import adds_to_loss, head_beside, only_what_is_added
from clm_pt.datasets import BlockDataset, EpochBatches, ShareLoader, collate
from clm_pt.head import head_of
from clm_pt.modeling import load_as, precision, save, save_pretrained
from clm_pt.optimization import create_scheduler, decaying, give_rate
from clm_pt.optimizers import DefinedOptimizer
from clm_pt.processes import agree, gather, meet, wait_for_all
from clm_pt.scoring import loss_and_outputs, score_by, share_of_step, token_loss
from clm_pt.sharding import check_can_be_sharded, check_memory, free, shard, whole_weights
from clm_pt.steps import ON_THE_WAY, Steps
from clm_pt.workers import is_worker


@dataclass(frozen=True)
class ShardedState:
    """What a checkpoint has of a model that is sharded, in the process that writes it."""

    weights: dict[str, torch.Tensor]
    moments: checkpoints.OfParameters


class ScheduledTrainer(Trainer):
    """A Trainer that takes the order of the blocks from the schedule, and reports to the job."""

    control: Any  # Set by Trainer.
    optimizer: Any
    lr_scheduler: LambdaLR | None

    def __init__(self, job: TrainingJob, **changes: Any) -> None:
        self.job = job
        self.is_sharded = job.options.fsdp
        if self.is_sharded:
            check_memory(job.source)
        model = _aligned(parts.trainable_as_new(load_as(job.source, masters.dtype_to_load(job))))
        choose_attention(model, job.options.attn_implementation, bf16=job.config.computes_in_bfloat16)
        parts.choose(model, job.config)
        self._uses_cache = getattr(model.config, "use_cache", None)
        with precision(model.dtype == torch.bfloat16):
            self.adds = adds_to_loss(model, job.train)
            self.head = head_beside(model, job.train) if self.adds else head_of(model)
        if self.is_sharded:
            check_can_be_sharded(model, in_bfloat16=job.config.has_bfloat16_weights)
        if self.is_sharded or is_worker():
            meet(job)
        super().__init__(
            args=training_arguments(job),
            model=model,
            train_dataset=BlockDataset(job.train),
            **{"data_collator": collate, "compute_loss_func": token_loss, **changes},
        )
        self.state.global_step = job.first_step
        self.steps = Steps(job, self.args.device, is_sharded=self.is_sharded)
        self.masters = masters.masters_of(self.model, job)
        if self.is_sharded:
            shard(self.model, self.args.device, in_bfloat16=job.config.has_bfloat16_weights)
        if self.is_sharded or self.masters:
            # Not into DistributedDataParallel as well.
            self.accelerator.prepare_model = partial(
                self.accelerator.prepare_model, device_placement=False, evaluation_mode=True
            )

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

    def written_weights(self) -> AbstractContextManager[None]:
        """Within it, the model has the weights that are written, which are float32."""
        return self.masters.in_place() if self.masters else nullcontext()

    def _save(self, *args: Any, **kwargs: Any) -> None:
        with self.own_cache():
            super()._save(*args, **kwargs)

    def _move_model_to_device(self, model: torch.nn.Module, device: torch.device) -> None:
        """A model that is to be sharded moves in parts."""
        if not self.is_sharded:
            super()._move_model_to_device(model, device)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The batches of the schedule for this device, epoch after epoch."""
        return ShareLoader(
            self.train_dataset,
            EpochBatches(self.job.schedule, self.job.world.rank, self.job.first_step),
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def get_batch_samples(self, batches: Iterator[Any], count: int, device: torch.device) -> tuple[list[Any], Any]:
        """The batches of a step, and its tokens over all devices: as the schedule has them, but for those masked."""
        samples = list(islice(batches, count))
        if isinstance(self.job.train, MaskedBlocks):
            own = sum(int((batch["labels"] != IGNORED).sum()) for batch in samples)
            total = sum(int(found) for (found,) in gather([own]))
        else:
            total = self._rows_of_step() * (self.job.train.shape[1] - 1)
        return samples, torch.full((), total, device=device)  # A copy of the number would wait for the device.

    def _prepare_inputs(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Send a batch to the device; a GPU gets it, from pinned memory, while it still computes."""
        device = self.args.device
        return {name: it.to(device, non_blocking=device.type in ON_THE_WAY) for name, it in inputs.items()}

    def _rows_of_step(self) -> int:
        return self.job.schedule.rows_of_step(self.state.global_step)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """AdamW as Trainer makes it, for another one only its groups of parameters; with the rate of the embeddings."""
        is_new, optimizer = self.optimizer is None, super().create_optimizer(*args, **kwargs)
        if not is_new:
            return optimizer
        model, rate = self._whole_model(), self.job.config.embedding_learning_rate
        if not is_adamw(self.job.config.optim):
            optimizer = self.optimizer = DefinedOptimizer(optimizer.param_groups, model, self.job.config)
        if rate is not None:
            give_rate(optimizer, [model.get_parameter(name) for name in parts.embeddings(model)], rate)
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """The learning rates of the schedule, from the job's first step on."""
        if self.lr_scheduler is None:
            self.lr_scheduler = create_scheduler(optimizer or self.optimizer, self.job.schedule, self.job.first_step)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """By the rule of every backend."""
        return decaying(model)

    def write_checkpoint(self, folder: Path, state: ShardedState | None = None) -> None:
        """Write the model and its optimizer into a folder; `state` is what they have, if they are sharded."""
        model = self._whole_model()
        is_last = self.state.global_step == self.job.schedule.total_steps  # Its model will be that of the run.
        with self.written_weights():
            with self.own_cache():
                (save if is_last else save_pretrained)(model, folder, weights=state.weights if state else None)
            checkpoints.write(folder, model, self.optimizer, moments=state.moments if state else None)

    def write_model(self, folder: Path) -> None:
        """Write the trained model, in the process that leads."""
        model, leads = self._whole_model(), self.job.world.leads
        weights = _weights(model, keep=leads) if self.is_sharded else None
        if leads:
            with self.written_weights(), self.own_cache():
                save(model, folder, weights=weights)

    def whole_state(self) -> ShardedState:
        """What is sharded, whole, in the process that leads; all processes are to ask for it."""
        model, leads = self._whole_model(), self.job.world.leads
        return ShardedState(_weights(model, keep=leads), checkpoints.whole_moments(model, self.optimizer, keep=leads))

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Write a checkpoint, in the format of all backends, where Trainer would write its own."""
        step = self.state.global_step
        saved: list[Any] = [Saved(step=step, path=self.job.output_dir / f"{PREFIX}{step}")]
        state = self.whole_state() if self.is_sharded else None
        if self.job.world.leads:
            save_checkpoint(replace(self.job, report=saved.append), step, partial(self.write_checkpoint, state=state))
        wait_for_all()
        self.job.report(saved[-1])  # Which may end the training, everywhere.

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the model has the checkpoint's weights already. Trainer would continue if some were missing.

        It also reads the configuration as one of no architecture, and fails in that of some (transformers 5).
        """

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Take the moments from the job's checkpoint, and everything else from the job."""
        if checkpoint is not None and self.job.resume_from is not None:
            with self.written_weights():
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
        """The loss of a batch by its share of the step's tokens, and what the model adds to it by that of its blocks.

        Both are kept as they are, because Trainer would round them.
        """
        labels = inputs["labels"]
        given = inputs if self.adds else {name: it for name, it in inputs.items() if name != "labels"}
        own = self.accelerator.unwrap_model(model, keep_torch_compile=False)
        with only_what_is_added(own) if self.adds else nullcontext():
            loss, outputs = loss_and_outputs(partial(model, **given), self.head, labels, num_items_in_batch)
        added = outputs.loss * share_of_step(labels, self._rows_of_step()) if self.adds else None
        self.steps.add(loss, added)
        loss = loss if added is None else loss + added
        if (devices := self.job.world.size) > 1:
            loss = loss * devices  # PyTorch takes the mean of the gradients of all devices, and a step has their sum.
        return (loss, outputs) if return_outputs else loss

    def report_step(self) -> None:
        """Report a step, and have Trainer do what is to follow; nothing is, unless the step is reported by now."""
        step, job = self.state.global_step, self.job
        is_reported = self.steps.report(step)  # Which says whether the training is to stop.
        self.control.should_evaluate = is_reported and job.evaluates_at(step)
        self.control.should_save = is_reported and job.saves_at(step)
        self.control.should_log = is_reported and job.schedule.logs_at(step)

    def log(self, logs: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """Tell Trainer's own callbacks the loss of a step as it was reported."""
        if "loss" in logs and (last := self.steps.last):
            logs |= {"loss": last.loss, "grad_norm": last.grad_norm}
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
        model, job = self.accelerator.unwrap_model(self.model), self.job
        size, world, together = job.config.per_device_eval_batch_size, job.world, partial(agree, job)
        try:
            with precision(job.config.computes_in_bfloat16):
                return score_by(model, self.head, self._validation(), size, job.report, world=world, together=together)
        finally:
            free(model)

    def tell(self, found: Score) -> dict[str, float]:
        """Tell Trainer's callbacks a score, and return it as Trainer would."""
        metrics = {"eval_loss": found.loss}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """What Trainer calls within a training."""
        return self.evaluate_if_due()


def _weights(model: PreTrainedModel, *, keep: bool) -> dict[str, torch.Tensor]:
    """What is written of a model that is sharded: all of it, or its adapter."""
    return adapters.tensors(model, keep=keep) if adapters.of(model) else whole_weights(model, keep=keep)


def _aligned(model: PreTrainedModel) -> PreTrainedModel:
    """The model with its own tensors; those read are in the mapped file, where they start at any byte.

    How a matrix product is rounded depends on that, so a resumed training would diverge from an uninterrupted one.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model
