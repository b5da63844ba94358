"""Training with transformers' Trainer, on the course that the schedule lays down."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, Trainer, TrainerCallback

from clm_core import checkpoints
from clm_core.backend import Evaluated, Model, Saved, StepDone, TrainingJob
from clm_core.errors import ModelError
from clm_pt.arguments import own_environment, training_arguments
from clm_pt.datasets import BlockDataset, EpochSampler, collate
from clm_pt.modeling import load, save, sync
from clm_pt.scoring import score, token_loss

STATE = ("optimizer.pt", "scheduler.pt", "trainer_state.json", "rng_state.pth")
"""What Trainer writes into a checkpoint beside the weights, and goes on without where it is not there."""


@own_environment()
def train(job: TrainingJob) -> None:
    """Train, and write the model.

    Raises:
        ModelError: the model or the checkpoint cannot be loaded.
        OptionError: the hardware cannot do what an option asks for, or the training was started as several processes.
        OutputError: the weights on disk are not those of the model.
    """
    if job.resume_from is not None:
        _check_complete(job.resume_from)
    trainer = create_trainer(job)
    if job.resume_from is None and trainer.validates_at(0):
        trainer.evaluate()
    trainer.train(resume_from_checkpoint=str(job.resume_from) if job.resume_from else None)
    save(trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False), job.model_dir)


@own_environment()
def create_trainer(job: TrainingJob) -> "ScheduledTrainer":
    """The Trainer of a job, ready for `train()`.

    Raises:
        ModelError: the model cannot be loaded.
        OptionError: the hardware cannot do what an option asks for, or the training was started as several processes.
    """
    trainer = ScheduledTrainer(job)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_FollowSchedule(job))
    return trainer


class ScheduledTrainer(Trainer):
    """A Trainer that takes the order of the blocks from the schedule, and reports to the job."""

    def __init__(self, job: TrainingJob) -> None:
        self.job = job
        self.losses: list[Any] = []
        """Of each batch of the step: its share of the step's loss."""
        super().__init__(
            args=training_arguments(job),
            model=load(_source(job)),
            train_dataset=BlockDataset(job.train),
            data_collator=collate,
            compute_loss_func=token_loss,
        )

    def validates_at(self, step: int) -> bool:
        """Whether there is something to validate on, and it is the time for it."""
        return self.job.validation is not None and self.job.schedule.evaluates_at(step)

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        return EpochSampler(self.job.schedule)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Take the moments from a checkpoint, and the options from the job, which may have been given others."""
        options = [{name: group[name] for name in group if name != "params"} for group in self.optimizer.param_groups]
        rates = self.lr_scheduler.base_lrs
        try:
            super()._load_optimizer_and_scheduler(checkpoint)
        except Exception as error:  # A torn file may lead to any.
            raise ModelError(f"{checkpoint}: the optimizer's state cannot be restored: {error}") from error
        if checkpoint is None:
            return
        self.lr_scheduler.base_lrs = rates
        factors = [factor(self.lr_scheduler.last_epoch) for factor in self.lr_scheduler.lr_lambdas]
        for group, own, rate, factor in zip(self.optimizer.param_groups, options, rates, factors, strict=True):
            group.update(own, lr=rate * factor)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Write a checkpoint that does not count as whole until all of it is on disk."""
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        (folder / checkpoints.MARKER).unlink(missing_ok=True)  # Of the run before, which this one does again.
        super()._save_checkpoint(*args, **kwargs)
        # A pickle, in which a token may be; no resumption reads it.
        (folder / "training_args.bin").unlink(missing_ok=True)
        sync(folder)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Keep each batch's share of the step's loss, which Trainer would round."""
        loss = super().training_step(*args, **kwargs)
        self.losses.append(loss)
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Report a step, which Trainer is made to log each time; its own callbacks hear of it where it is scheduled."""
        if "loss" not in logs:
            super().log(logs, *args, **kwargs)
            return
        step = self.state.global_step
        logs["loss"] = math.fsum(map(float, self.losses))
        self.losses.clear()
        self.job.report(StepDone(step=step, loss=logs["loss"], grad_norm=_number(logs.get("grad_norm"))))
        if self.job.schedule.logs_at(step):
            super().log(logs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score the validation blocks, each token counting once; Trainer's own is a mean of means."""
        model = self.accelerator.unwrap_model(self.model)
        found = score(model, self.job.validation, self.job.config, self.job.report)
        self.job.report(Evaluated(step=self.state.global_step, score=found))
        metrics = {"eval_loss": found.loss}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class _FollowSchedule(TrainerCallback):
    """Tells Trainer when to evaluate and save, and the job what was saved."""

    def __init__(self, job: TrainingJob) -> None:
        self.job = job

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step, schedule = state.global_step, self.job.schedule
        control.should_log = True
        control.should_evaluate = schedule.evaluates_at(step) and self.job.validation is not None
        control.should_save = schedule.saves_at(step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = checkpoints.complete(self.job, state.global_step, backend="pt")
        self.job.report(Saved(step=state.global_step, path=folder))


def _source(job: TrainingJob) -> Model:
    """What to load; Trainer reads a checkpoint's weights again, and would go on where some are missing."""
    return replace(job.model, name_or_path=str(job.resume_from)) if job.resume_from else job.model


def _check_complete(checkpoint: Path) -> None:
    if absent := [name for name in STATE if not (checkpoint / name).is_file()]:
        raise ModelError(f"{checkpoint} lacks {', '.join(absent)}: use another checkpoint")


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
