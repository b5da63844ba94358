"""The schedule of a training: blocks and learning rate of each step; when to log, evaluate and save.

It is decided here, once for every backend. Everything is a pure function of its arguments, so that two
frameworks, or a run before and after it was resumed, cannot disagree about it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clm_core.config import TrainConfig
from clm_core.errors import DataError, OptionError

Rows = npt.NDArray[np.int64]


def epoch_order(blocks: int, *, seed: int, epoch: int) -> Rows:
    """The order of the blocks in an epoch: a permutation of `range(blocks)`, int64, that depends on nothing else.

    Sorting the raw output of a bit generator, because NumPy keeps that stream stable between
    versions and makes no such promise for `permutation` (NEP 19).
    """
    bits = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(blocks)
    return np.argsort(bits, kind="stable")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A training of `total_steps` optimizer steps over `blocks` blocks.

    A step updates the weights once; it takes up to `accumulation` batches of up to `batch_size` blocks. An epoch's
    last step takes what is left, so that no block is dropped; with `drop_last`, a batch that is not full is left out.
    """

    blocks: int
    data: str
    """SHA-256 of the tokens that the blocks are cut from."""
    batch_size: int
    accumulation: int
    seed: int
    total_steps: int
    warmup_steps: int
    learning_rate: float
    lr_scheduler_type: str
    logging_steps: int
    eval_every: int | None
    save_every: int | None
    drop_last: bool = False

    @classmethod
    def from_config(cls, config: TrainConfig, blocks: int, data: str = "") -> "Schedule":
        """Resolve epochs, ratios and strategies to integers.

        Raises:
            DataError: there are fewer blocks than a batch has.
            OptionError: the warmup is given twice, or is longer than the training.
        """
        batch, accumulation = config.per_device_train_batch_size, config.gradient_accumulation_steps
        if blocks < batch:
            raise DataError(
                f"{blocks} training block{'s' * (blocks != 1)} of {config.block_size} tokens cannot fill a batch of "
                f"{batch}: use --per-device-train-batch-size {blocks}, a smaller --block-size, or more text"
            )
        batches = blocks // batch if config.dataloader_drop_last else math.ceil(blocks / batch)
        steps_per_epoch = math.ceil(batches / accumulation)
        total = config.max_steps if config.max_steps > 0 else math.ceil(config.num_train_epochs * steps_per_epoch)
        every = {"no": None, "epoch": steps_per_epoch}
        return cls(
            blocks=blocks,
            data=data,
            batch_size=batch,
            accumulation=accumulation,
            seed=config.seed,
            total_steps=total,
            warmup_steps=_warmup_steps(config, total),
            learning_rate=config.learning_rate,
            lr_scheduler_type=config.lr_scheduler_type,
            logging_steps=config.logging_steps,
            eval_every=every.get(config.eval_strategy, config.eval_steps),
            save_every=every.get(config.save_strategy, config.save_steps),
            drop_last=config.dataloader_drop_last,
        )

    @property
    def batches_per_epoch(self) -> int:
        """How many batches an epoch has, the last one possibly short."""
        return math.ceil(self.blocks_per_epoch / self.batch_size)

    @property
    def blocks_per_epoch(self) -> int:
        """How many blocks an epoch trains on."""
        return self.blocks - self.blocks % self.batch_size if self.drop_last else self.blocks

    @property
    def steps_per_epoch(self) -> int:
        """How many steps an epoch has."""
        return math.ceil(self.batches_per_epoch / self.accumulation)

    @property
    def epochs(self) -> int:
        """How many epochs the training enters, the last one possibly cut short."""
        return math.ceil(self.total_steps / self.steps_per_epoch)

    def batches(self, epoch: int) -> Iterator[Rows]:
        """The rows of each batch of an epoch, in order, int64 of shape (batch_size,) or less for the last."""
        order = epoch_order(self.blocks, seed=self.seed, epoch=epoch)
        for start in range(0, self.blocks_per_epoch, self.batch_size):
            yield order[start : start + self.batch_size]

    def steps(self, first_step: int = 0) -> Iterator[tuple[int, list[Rows]]]:
        """The steps that are left after `first_step` of them: the number of each, from 1, and the rows of its batches.

        The batches are those of `batches`, up to `accumulation` to a step; where an epoch ends, there may be fewer.
        """
        for done in range(first_step, self.total_steps):
            epoch, within = divmod(done, self.steps_per_epoch)
            if within == 0 or done == first_step:
                batches = list(self.batches(epoch))
            yield done + 1, batches[within * self.accumulation : (within + 1) * self.accumulation]

    def first_batch(self, step: int) -> tuple[int, int]:
        """The epoch, and the batch within it, that follow after `step` steps: where a resumed training starts."""
        epoch, done = divmod(step, self.steps_per_epoch)
        return epoch, done * self.accumulation

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of the step after `step` steps, as in transformers' `get_scheduler`."""
        if step < self.warmup_steps:
            return self.learning_rate * step / self.warmup_steps
        if self.lr_scheduler_type.startswith("constant"):
            return self.learning_rate
        remaining = max(1, self.total_steps - self.warmup_steps)
        progress = min(1.0, (step - self.warmup_steps) / remaining)
        decay = 1.0 - progress if self.lr_scheduler_type == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
        return self.learning_rate * decay

    def logs_at(self, step: int) -> bool:
        """Whether to report the loss after this many steps."""
        return step % self.logging_steps == 0 or step == self.total_steps

    def evaluates_at(self, step: int) -> bool:
        """Whether to evaluate after this many steps: before, during and after the training."""
        return self.eval_every is not None and (step % self.eval_every == 0 or step == self.total_steps)

    def saves_at(self, step: int) -> bool:
        """Whether to write a checkpoint after this many steps."""
        return self.save_every is not None and step > 0 and (step % self.save_every == 0 or step == self.total_steps)

    def identity(self) -> dict[str, int | str]:
        """What a checkpoint must share with the run that resumes it, so that the order of the blocks continues."""
        return {
            "data": self.data,
            "blocks": self.blocks,
            "per_device_train_batch_size": self.batch_size,
            "gradient_accumulation_steps": self.accumulation,
            "seed": self.seed,
            "dataloader_drop_last": self.drop_last,
        }


def _warmup_steps(config: TrainConfig, total: int) -> int:
    if config.warmup_steps and config.warmup_ratio:
        raise OptionError("warmup_steps and warmup_ratio cannot be combined: give one of them")
    steps = config.warmup_steps or math.ceil(total * config.warmup_ratio)
    if config.lr_scheduler_type == "constant" and steps:
        raise OptionError("lr_scheduler_type constant has no warmup: use constant_with_warmup, or leave the warmup out")
    if steps > total:
        raise OptionError(f"warmup_steps {steps} is more than the {total} steps of this training")
    return steps
