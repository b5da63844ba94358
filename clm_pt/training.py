"""Training with transformers' Trainer, on the course that the schedule lays down."""

import copy
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from transformers import (
    DataCollatorForLanguageModeling,
    EvalPrediction,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
)
from transformers.trainer import TRAINER_STATE_NAME

from clm_core import checkpoints
from clm_core.backend import BatchScored, Evaluated, Model, Saved, Score, StepDone, TrainingJob
from clm_core.data.guide import GuideRows
from clm_core.errors import ModelError
from clm_core.models.decay import decays
from clm_pt.arguments import own_environment, training_arguments
from clm_pt.auxiliary import adds_to_loss, only_what_is_added
from clm_pt.clipping import clip
from clm_pt.datasets import IGNORED, BlockDataset, EpochSampler, collate
from clm_pt.modeling import load, save, sync
from clm_pt.scoring import score, share_of_step, token_loss

STATE = (checkpoints.MOMENTS, TRAINER_STATE_NAME, "rng_state.pth")
"""What is in a checkpoint beside the weights; Trainer would go on without."""


@own_environment()
def train(job: TrainingJob) -> None:
    """Train, and write the model.

    Raises:
        ModelError: the model or the checkpoint cannot be loaded.
        OptionError: the hardware cannot do what an option asks for, or the training was started as several processes.
        OutputError: the weights on disk are not those of the model.
    """
    if job.resume_from is not None and checkpoints.backend_of(job.resume_from) == "pt":
        _check_complete(job.resume_from)
    trainer = create_trainer(job)
    if job.resume_from is None and trainer.validates_at(0):
        trainer.evaluate()
    if job.schedule.total_steps:
        with _readable(job.resume_from, trainer) as checkpoint:
            trainer.train(resume_from_checkpoint=checkpoint)
    with trainer.own_cache():
        save(trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False), job.model_dir)


@own_environment()
def create_trainer(job: TrainingJob) -> "ScheduledTrainer":
    """The Trainer of a job, ready for `train()`.

    Raises:
        ModelError: the model cannot be loaded.
        OptionError: the hardware cannot do what an option asks for, or the training was started as several processes.
    """
    trainer = GuideTrainer(job) if job.options.guide else ScheduledTrainer(job)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_FollowSchedule(job))
    if not job.options.guide:
        trainer.add_callback(_Clip(trainer))
    return trainer


class ScheduledTrainer(Trainer):
    """A Trainer that takes the order of the blocks from the schedule, and reports to the job."""

    def __init__(self, job: TrainingJob, **changes: Any) -> None:
        self.job = job
        self.grad_norm: float | None = None
        """Of the last step, before clipping."""
        self.losses: list[Any] = []
        """Of each batch of the step: its share of the step's loss."""
        self.added: list[Any] = []
        """The same of what the model adds to the loss, such as for the balance of its experts."""
        model = _aligned(_trainable_as_new(load(_source(job))))
        self._uses_cache = getattr(model.config, "use_cache", None)
        self.adds = adds_to_loss(model, job.train)
        super().__init__(
            args=training_arguments(job),
            model=model,
            train_dataset=BlockDataset(job.train),
            **{"data_collator": collate, "compute_loss_func": token_loss, **changes},
        )

    def validates_at(self, step: int) -> bool:
        """Whether there is something to validate on, and it is the time for it."""
        return self.job.validation is not None and self.job.schedule.evaluates_at(step)

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

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        return EpochSampler(self.job.schedule)

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """By the rule of every backend. Trainer goes by names alone, and takes a RoBERTa-PreLayerNorm for a norm."""
        return [name for name, parameter in model.named_parameters() if decays(name, parameter.ndim)]

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Write the moments as every backend reads them; the rest is the job's, and the schedule's at this step."""
        state = self.optimizer.state
        moments = {name: _moments(state.get(parameter)) for name, parameter in self._trained().items()}
        checkpoints.write_moments(Path(output_dir), moments)

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the weights are the checkpoint's already. Trainer would go on where some are missing.

        It also reads the configuration as one of no architecture, and fails in that of some (transformers 5).
        """

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Take the moments from a checkpoint, whichever backend wrote it, and all else from the job."""
        if checkpoint is None:
            return
        step, trained = checkpoints.step_of(Path(checkpoint)), self._trained()
        shapes = {name: tuple(parameter.shape) for name, parameter in trained.items()}
        for name, moments in checkpoints.read_moments(Path(checkpoint), shapes).items():
            if moments:
                self.optimizer.state[trained[name]] = _state(moments, trained[name])
        scheduler = self.lr_scheduler
        scheduler.last_epoch = step
        factors = [factor(step) for factor in scheduler.lr_lambdas]
        scheduler._last_lr = [rate * factor for rate, factor in zip(scheduler.base_lrs, factors, strict=True)]
        for group, rate in zip(self.optimizer.param_groups, scheduler._last_lr, strict=True):
            group["lr"] = rate

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Write a checkpoint that does not count as whole until all of it is on disk."""
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        (folder / checkpoints.MARKER).unlink(missing_ok=True)  # Of the run before, which this one does again.
        super()._save_checkpoint(*args, **kwargs)
        # A pickle, in which a token may be; no resumption reads it.
        (folder / "training_args.bin").unlink(missing_ok=True)
        sync(folder)

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

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
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


class GuideTrainer(ScheduledTrainer):
    """Trainer as the guide's PyTorch tab has it, on its collator; only when to evaluate and save is the schedule's.

    Its losses are those that the guide's script reports. transformers 4.57 divides them by all tokens of the blocks,
    the first of each included, which nothing predicts.
    """

    def __init__(self, job: TrainingJob) -> None:
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

    _get_train_sampler = Trainer._get_train_sampler
    get_decay_parameter_names = Trainer.get_decay_parameter_names
    compute_loss = Trainer.compute_loss

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Keep each batch's share of the step's loss, which Trainer would round."""
        loss = super().training_step(*args, **kwargs)
        self.losses.append(loss)
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Take the norm of the gradient from Trainer, which clips."""
        self.grad_norm = logs.get("grad_norm")
        super().log(logs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Report what Trainer finds; the evaluation before the first step is not in the guide, and draws no numbers."""
        step = self.state.global_step
        with nullcontext() if step else torch.random.fork_rng(devices=[]):
            metrics: dict[str, float] = Trainer.evaluate(self, BlockDataset(self.job.validation))
        tokens = int(metrics["eval_tokens"])
        found = Score(loss_sum=metrics["eval_loss"] * tokens, correct=int(metrics["eval_correct"]), tokens=tokens)
        self.job.report(Evaluated(step=step, score=found))
        return metrics

    def prediction_step(self, *args: Any, **kwargs: Any) -> Any:
        """Report each batch."""
        found = super().prediction_step(*args, **kwargs)
        self.job.report(BatchScored(blocks=len(found[2])))
        return found


class _Clip(TrainerCallback):
    """Clips the gradient of a step when it is whole."""

    def __init__(self, trainer: ScheduledTrainer) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.grad_norm = clip(self.trainer.model.parameters(), self.trainer.job.config.max_grad_norm)


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


def _moments(state: dict[str, torch.Tensor] | None) -> checkpoints.Moments | None:
    """What torch's AdamW keeps of a parameter, which is nothing as long as there was no gradient."""
    if not state:
        return None
    first, second = (state[key].float().cpu().numpy() for key in ("exp_avg", "exp_avg_sq"))
    return checkpoints.Moments(first, second, int(state["step"]))


def _state(moments: checkpoints.Moments, parameter: torch.nn.Parameter) -> dict[str, torch.Tensor]:
    # Of the parameter's own type, which is bfloat16 for those of an activation of Apertus in any model.
    first, second = (torch.zeros_like(parameter).copy_(torch.tensor(it)) for it in (moments.first, moments.second))
    return {"step": torch.tensor(float(moments.updates)), "exp_avg": first, "exp_avg_sq": second}


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
    """The model with tensors of its own, where those read lie in the mapped file, in which they begin anywhere.

    What a product of matrices is rounded to depends on that, and a continued training would part from the first.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model


def _likeliest(logits: Any, labels: torch.Tensor) -> torch.Tensor:
    """What Trainer is to keep of the logits, (batch, block_size); some models give more than logits."""
    return (logits[0] if isinstance(logits, tuple) else logits).argmax(-1)


def _hits(found: EvalPrediction) -> dict[str, int]:
    predicted, labels = found.predictions[:, :-1], found.label_ids[:, 1:]
    return {"tokens": int((labels != IGNORED).sum()), "correct": int((predicted == labels).sum())}


def _source(job: TrainingJob) -> Model:
    """What to load: the weights of the checkpoint, if there is one."""
    return replace(job.model, name_or_path=str(job.resume_from)) if job.resume_from else job.model


@contextmanager
def _readable(checkpoint: Path | None, trainer: Trainer) -> Iterator[str | None]:
    """A checkpoint as Trainer reads it: with its own record of the step, which another backend does not write."""
    if checkpoint is None or (checkpoint / TRAINER_STATE_NAME).is_file():
        yield str(checkpoint) if checkpoint else None
        return
    with tempfile.TemporaryDirectory(prefix="clm-checkpoint-") as folder:
        for path in checkpoint.iterdir():
            (Path(folder) / path.name).symlink_to(path.absolute())
        size = trainer.args.per_device_train_batch_size
        state = replace(trainer.state, global_step=checkpoints.step_of(checkpoint), train_batch_size=size)
        state.save_to_json(str(Path(folder) / TRAINER_STATE_NAME))
        yield folder


def _check_complete(checkpoint: Path) -> None:
    if absent := [name for name in STATE if not (checkpoint / name).is_file()]:
        raise ModelError(f"{checkpoint} lacks {', '.join(absent)}: use another checkpoint")
