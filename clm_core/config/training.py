"""Options for training and evaluation."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from clm_core import rates
from clm_core.config.declaration import option
from clm_core.config.model import DtypeOptions
from clm_core.config.values import (
    at_least,
    between,
    devices,
    duration,
    in_float32,
    limit,
    not_negative,
    parts,
    positive,
    positive_or_unlimited,
)

if TYPE_CHECKING:
    ScheduleName = str
else:
    ScheduleName = Literal[tuple(rates.SCHEDULES)]


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """Devices."""

    nproc_per_node: str | None = option(
        None,
        "devices to use on this machine: a number, or `gpu` for all GPUs; default: one. What follows `--` at the end "
        "of the command is for the launcher of the processes, such as torchrun",
        metavar="N",
        check=devices,
    )


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(DtypeOptions):
    """Evaluation."""

    per_device_eval_batch_size: int = option(8, "blocks per batch of one device in an evaluation", check=at_least(1))
    bf16: bool = option(False, "compute in bfloat16 where that is safe; the weights stay as dtype says")

    @property
    def computes_in_bfloat16(self) -> bool:
        """Whether to compute in bfloat16 where that is safe."""
        return self.bf16 or self.has_bfloat16_weights


@dataclass(frozen=True, kw_only=True)
class OptimizationOptions:
    """The schedule and the optimizer."""

    num_train_epochs: float = option(3.0, "epochs to train; may be fractional", check=positive)
    max_steps: int = option(-1, "number of steps; overrides num_train_epochs", check=positive_or_unlimited)
    max_trained_tokens: int | None = option(
        None,
        "train on at most this many tokens, over all epochs, instead of num_train_epochs: as many steps as fit in, and "
        "the schedule ends with them",
        check=at_least(1),
    )
    per_device_train_batch_size: int = option(8, "blocks per batch of one device", check=at_least(1))
    train_batch_size: int | None = option(
        None,
        "blocks per step, over all devices; gradient_accumulation_steps follows from it; default: "
        "per_device_train_batch_size times gradient_accumulation_steps times devices",
        check=at_least(1),
    )
    gradient_accumulation_steps: int = option(1, "batches of each device per step", check=at_least(1))
    dataloader_drop_last: bool = option(False, "leave out the last batch of an epoch if it is not full")
    learning_rate: float = option(2e-5, "the learning rate after warmup", check=in_float32(positive))
    embedding_learning_rate: float | None = option(
        None,
        "the same for the token embeddings, and for an output layer that is not tied to them; default: learning_rate",
        check=in_float32(positive),
    )
    lr_scheduler_type: ScheduleName = option(  # noqa: RUF009  (a field, as the others)
        "linear", "learning-rate schedule after warmup", refused=rates.REFUSED
    )
    lr_scheduler_kwargs: str | None = option(
        None, "arguments of the schedule, such as `num_cycles=3` or `min_lr_rate=0.1`", metavar="KEY=VALUE,..."
    )
    warmup_steps: int = option(0, "steps over which the learning rate rises from 0", check=at_least(0))
    warmup_ratio: float = option(0.0, "the same, as a fraction of all steps", check=between(0, 1, open_high=True))
    optim: Literal["adamw_torch", "adamw", "adafactor", "muon"] = option(
        "adamw_torch",
        "the optimizer: AdamW (also `adamw`), Adafactor, or Muon for the matrices of the layers and AdamW for the rest",
        same={"adamw": "adamw_torch"},
        refused={
            **dict.fromkeys(("adamw_torch_fused", "adamw_hf"), "it computes what adamw_torch does: give that"),
            **dict.fromkeys(
                ("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit", "paged_adamw_32bit"),
                "clm has no bitsandbytes; adafactor keeps the smallest state",
            ),
        },
    )
    weight_decay: float = option(
        0.01, "decoupled weight decay; not applied to norms and biases", check=in_float32(not_negative)
    )
    adam_beta1: float = option(0.9, "AdamW's decay of the first moment", check=between(0, 1, open_high=True))
    adam_beta2: float = option(0.999, "AdamW's decay of the second moment", check=between(0, 1, open_high=True))
    adam_epsilon: float = option(1e-8, "AdamW's epsilon, added outside the square root", check=in_float32(positive))
    max_grad_norm: float = option(
        1.0, "clip gradients to this global norm; 0 disables clipping", check=in_float32(limit)
    )
    gradient_checkpointing: bool = option(False, "recompute activations in the backward pass, to save memory")


@dataclass(frozen=True, kw_only=True)
class PartsOptions:
    """Parts of a model; the others keep their weights as they are."""

    freeze: tuple[str, ...] = option(
        (),
        "parts not to train: names of parameters or modules as in model.safetensors, or parts of such names between "
        "dots, with `*` for anything; `embeddings`, the token embeddings and the output layer; `layers:0-5`, or "
        "`layers:-1` for the last",
        metavar="PART",
        check=parts,
    )
    train_only: tuple[str, ...] = option(
        (), "parts to train, and no others; named as for freeze", metavar="PART", check=parts
    )


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Output, checkpoints and evaluations."""

    output_dir: str | None = option(
        None, "folder for the run; default: the first free runs/NAME-BACKEND", metavar="DIR"
    )
    overwrite_output_dir: bool = option(False, "delete what an earlier run left in output_dir")
    resume_from_checkpoint: str | None = option(
        None,
        "resume from this checkpoint, or from the run's latest, with the run's options; `auto`: resume the run in "
        "output_dir if there is one, and start it if not",
        metavar="DIR",
    )
    save_on_signal: bool = option(
        True, "when a signal or the file `stop` in output_dir ends the training, write a checkpoint first"
    )
    auto_find_batch_size: bool = option(
        False,
        "where the first step runs out of memory, start again with half as many blocks per batch, until it fits; a "
        "step keeps its blocks",
    )
    eval_strategy: Literal["no", "steps", "epoch"] = option(
        "epoch", "when to evaluate during training; unless `no`, also before and after it"
    )
    eval_steps: int = option(500, "steps between evaluations, for eval_strategy `steps`", check=at_least(1))
    save_strategy: Literal["no", "steps", "epoch"] = option("epoch", "when to write a checkpoint")
    save_steps: int = option(500, "steps between checkpoints, for save_strategy `steps`", check=at_least(1))
    save_total_limit: int | None = option(2, "checkpoints to keep; `none` keeps all", check=at_least(1))
    check_disk: bool = option(
        True, "make sure before the training that its checkpoints and its model will fit on the disk"
    )
    stop_on_loss_spike: float | None = option(
        None,
        "stop where the loss is more than this many times the running median of the last 50 losses, for "
        "loss_spike_patience steps in a row",
        metavar="FACTOR",
        check=between(1, math.inf, open_low=True, open_high=True),
    )
    loss_spike_patience: int = option(3, "steps in a row that make a spike for stop_on_loss_spike", check=at_least(1))
    early_stopping_patience: int | None = option(
        None,
        "end the training after this many evaluations in a row that are not better than the best one before; the best "
        "checkpoint is kept",
        metavar="N",
        check=at_least(1),
    )
    early_stopping_threshold: float = option(
        0.0, "by how much an evaluation has to be better for early_stopping_patience", check=not_negative
    )
    load_best_model_at_end: bool = option(
        False, "keep the best checkpoint, and make its weights those of the run when the training ends"
    )
    metric_for_best_model: Literal["loss", "perplexity", "accuracy", "bits_per_byte"] = option(
        "loss", "which figure of an evaluation says how good it is"
    )
    max_train_time: str | None = option(
        None,
        "end the training once it took this long, such as `8h`, `1h30m` or `1:30:00`, with a checkpoint to resume from",
        metavar="TIME",
        check=duration,
    )
    logging_steps: int = option(10, "steps between reports of the loss", check=at_least(1))
    report_to: Literal["none", "tensorboard"] = option("none", "also log curves for this tracker, under output_dir")

    @property
    def keeps_best(self) -> bool:
        """Whether the best checkpoint is looked for: then it also saves where it evaluates, and keeps the best."""
        return self.load_best_model_at_end or self.early_stopping_patience is not None
