"""A training as steps: the blocks of each, shared out to the devices, its learning rate, and what follows after it."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from clm_core import rates
from clm_core.config import OptimizationOptions, TrainConfig
from clm_core.config.values import FLOAT32
from clm_core.counts import with_noun
from clm_core.errors import DataError, OptionError
from clm_core.schedule.order import FEISTEL, IN_MEMORY, Rows, rows_in
from clm_core.schedule.tokens import Numbers, total_steps

Rates = npt.NDArray[np.float64]

UNKNOWN = 2**62
"""Steps of a training of which it is not known yet how many it has: more than any has."""

RATES_AT_ONCE = 2**16
"""Learning rates computed at a time, so that no more memory is needed than they take."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A training of `total_steps` optimizer steps over `blocks` blocks.

    A step takes `step_blocks` blocks of the epoch's order, whichever devices compute them, in `accumulation` batches of
    each device. An epoch's last step takes what is left, so that no block is dropped; with `drop_last`, its blocks
    beyond the last full batch are left out.
    """

    blocks: int
    data: str
    """SHA-256 of the tokens that the blocks are cut from."""
    batch_size: int
    """Blocks in a batch of one device, at most."""
    step_blocks: int
    """Blocks in a step, over all devices."""
    seed: int
    total_steps: int
    warmup_steps: int
    learning_rate: float
    lr_scheduler_type: str
    logging_steps: int
    eval_every: int | None
    save_every: int | None
    drop_last: bool = False
    devices: int = 1
    """The devices that each step is shared out to."""
    lr_scheduler_kwargs: str | None = None
    saves_evaluated: bool = False
    """Whether it also saves where it evaluates, because the best checkpoint is looked for."""

    @classmethod
    def from_config(
        cls,
        config: TrainConfig,
        blocks: int,
        data: str = "",
        *,
        validation: bool = True,
        devices: int = 1,
        of_blocks: Numbers | None = None,
    ) -> "Schedule":
        """Resolve epochs, ratios, budgets and strategies to integers; without validation blocks it never evaluates.

        `of_blocks`: how many tokens count in each block, of shape (blocks,); None if all do.

        Raises:
            DataError: there are fewer blocks than a batch has.
            OptionError: the warmup is given twice, or is longer than the training; the learning rate's schedule cannot
                have its arguments; or updates are beyond float32.
        """
        _check_updates(config)
        each = config.per_device_train_batch_size * config.gradient_accumulation_steps
        step_blocks = config.train_batch_size or each * devices
        batch = min(config.per_device_train_batch_size, step_blocks)
        if blocks < batch:
            raise DataError(
                f"{with_noun(blocks, 'training block')} of {with_noun(config.block_size, 'token')} cannot fill a batch "
                f"of {batch}: use --per-device-train-batch-size {blocks}, a smaller --block-size, or more text"
            )
        endless = cls(
            blocks=blocks,
            data=data,
            batch_size=batch,
            step_blocks=step_blocks,
            seed=config.seed,
            total_steps=UNKNOWN,
            warmup_steps=0,
            learning_rate=config.learning_rate,
            lr_scheduler_type=config.lr_scheduler_type,
            logging_steps=config.logging_steps,
            eval_every=None,
            save_every=None,
            drop_last=config.dataloader_drop_last,
            devices=devices,
            lr_scheduler_kwargs=config.lr_scheduler_kwargs,
            saves_evaluated=config.keeps_best,
        )
        total = total_steps(config, endless, of_blocks)
        warmup_steps = _warmup_steps(config, total)
        check_rates(config, total, warmup_steps)
        every = {"no": None, "epoch": endless.steps_per_epoch}
        eval_every = every.get(config.eval_strategy, config.eval_steps) if validation else None
        if config.keeps_best and eval_every is None:
            raise _without_evaluations(config)
        save_every = every.get(config.save_strategy, config.save_steps)
        return replace(
            endless, total_steps=total, warmup_steps=warmup_steps, eval_every=eval_every, save_every=save_every
        )

    @property
    def share_size(self) -> int:
        """Blocks in a full batch of one device: `batch_size`, or fewer, so that a step has some for each device."""
        return min(self.batch_size, math.ceil(self.step_blocks / self.devices))

    @property
    def accumulation(self) -> int:
        """How many batches of each device a step has, the last one possibly short or empty."""
        return self._batches_for(self.step_blocks)

    @property
    def batches_per_epoch(self) -> int:
        """How many batches of each device an epoch has."""
        steps, rest = divmod(self.blocks_per_epoch, self.step_blocks)
        return steps * self.accumulation + self._batches_for(rest)

    @property
    def blocks_per_epoch(self) -> int:
        """How many blocks an epoch trains on."""
        last_step = self.blocks % self.step_blocks
        return self.blocks - last_step % self.batch_size if self.drop_last else self.blocks

    @property
    def steps_per_epoch(self) -> int:
        """How many steps an epoch has."""
        return math.ceil(self.blocks_per_epoch / self.step_blocks)

    @property
    def epochs(self) -> int:
        """How many epochs the training enters, the last one possibly cut short."""
        return math.ceil(self.total_steps / self.steps_per_epoch)

    def batches(self, epoch: int, rank: int = 0, first_batch: int = 0) -> Iterator[Rows]:
        """The rows of each batch of a device in an epoch, in order, int64 of shape (share_size,) or less.

        Those before `first_batch` are left out, at no cost.
        """
        rows_of = self._rows_of(epoch)
        first_step, done = divmod(first_batch, self.accumulation)
        for step in range(first_step, self.steps_per_epoch):
            yield from self._share(rows_of(step), rank)[done if step == first_step else 0 :]

    def steps(self, first_step: int = 0) -> Iterator[tuple[int, list[Rows]]]:
        """The steps that are left after `first_step` of them: the number of each, from 1, and the rows of its batches.

        They are the batches of all devices; of one device, up to `accumulation` to a step, fewer where an epoch ends.
        """
        for step, rows in self._rows(first_step):
            yield step, [rows[at : at + self.share_size] for at in range(0, len(rows), self.share_size)]

    def shares(self, rank: int, first_step: int = 0) -> Iterator[tuple[int, list[Rows]]]:
        """The same for one device: the rows of its batches, as many at a step for each device, some of them empty.

        Batch `a` of device `r` of W takes the step's rows from `(a * W + r) * share_size` on.
        """
        for step, rows in self._rows(first_step):
            yield step, self._share(rows, rank)

    def blocks_until(self, step: int) -> int:
        """How many blocks the first steps take, those of each epoch counted again."""
        epochs, rest = divmod(step, self.steps_per_epoch)
        return epochs * self.blocks_per_epoch + rest * self.step_blocks

    def first_batch(self, step: int) -> tuple[int, int]:
        """The epoch, and the batch within it, that follow after `step` steps: where a resumed training starts."""
        epoch, done = divmod(step, self.steps_per_epoch)
        return epoch, done * self.accumulation

    def rows_of_epoch(self, epoch: int) -> Rows:
        """The blocks of an epoch in their order, int64 of shape (blocks_per_epoch,)."""
        return rows_in(self.blocks, seed=self.seed, epoch=epoch)(0, self.blocks_per_epoch)

    def rows_of_step(self, step: int) -> int:
        """How many blocks the step after `step` steps takes."""
        return min(self.step_blocks, self.blocks_per_epoch - step % self.steps_per_epoch * self.step_blocks)

    def learning_rates(self) -> Rates:
        """The learning rate of every step, of shape (total_steps,): what a backend trains with."""
        found = np.empty(self.total_steps)
        for first in range(0, self.total_steps, RATES_AT_ONCE):
            steps = np.arange(first, min(first + RATES_AT_ONCE, self.total_steps))
            found[steps[0] : steps[-1] + 1] = self._rates_at(steps)
        return found

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of the step after `step` steps: transformers' `get_scheduler`, in the same arithmetic."""
        return float(self._rates_at(np.array([step]))[0])

    def seed_at(self, step: int, rank: int = 0) -> int:
        """The seed of what a device draws at random in the step after `step` steps, such as dropout: 63 bits.

        A backend seeds by it before each step, so that a step draws the same whatever came before it, in this process
        or in another. How many numbers it draws, and how, is its framework's.
        """
        place = (step, rank) if rank else (step,)
        found = np.random.SeedSequence(self.seed, spawn_key=place).generate_state(1, np.uint64)
        return int(found[0] >> np.uint64(1))

    def logs_at(self, step: int) -> bool:
        """Whether to report the loss after this many steps."""
        return step % self.logging_steps == 0 or step == self.total_steps

    def evaluates_at(self, step: int) -> bool:
        """Whether to evaluate after this many steps: before, during and after the training."""
        return self.eval_every is not None and (step % self.eval_every == 0 or step == self.total_steps)

    def saves_at(self, step: int) -> bool:
        """Whether to write a checkpoint after this many steps."""
        regular = self.save_every is not None and (step % self.save_every == 0 or step == self.total_steps)
        return step > 0 and (regular or (self.saves_evaluated and self.evaluates_at(step)))

    def saves_until(self, step: int) -> int:
        """How many checkpoints are written up to this step."""
        every = {number for number in (self.save_every, self.eval_every if self.saves_evaluated else None) if number}
        regular = sum(step // number for number in every) - (step // math.lcm(*every) if len(every) > 1 else 0)
        at_end = step >= self.total_steps and bool(every) and all(self.total_steps % number for number in every)
        return regular + at_end

    def identity(self) -> dict[str, int | str]:
        """What a checkpoint must share with the run that resumes it, so that the order of the blocks continues.

        Only an order that is not sorted is named, so that checkpoints of an earlier clm stay what they are.
        """
        found: dict[str, int | str] = {"order": FEISTEL} if self.blocks > IN_MEMORY else {}
        return {
            **found,
            "data": self.data,
            "blocks": self.blocks,
            "train_batch_size": self.step_blocks,
            "seed": self.seed,
            "dataloader_drop_last": self.drop_last,
        }

    def _rows_of(self, epoch: int) -> Callable[[int], Rows]:
        """Gives the rows of the blocks of a step of the epoch, from 0."""
        rows, size, end = rows_in(self.blocks, seed=self.seed, epoch=epoch), self.step_blocks, self.blocks_per_epoch
        return lambda step: rows(step * size, min((step + 1) * size, end))

    def _rows(self, first_step: int) -> Iterator[tuple[int, Rows]]:
        """The number of each step that is left, and the rows of its blocks."""
        for done in range(first_step, self.total_steps):
            epoch, within = divmod(done, self.steps_per_epoch)
            if within == 0 or done == first_step:
                rows_of = self._rows_of(epoch)
            yield done + 1, rows_of(within)

    def _rates_at(self, steps: Rows) -> Rates:
        extent = rates.Extent(steps, self.total_steps, self.warmup_steps, self.learning_rate)
        found: Rates = rates.rates(self.lr_scheduler_type, extent, self.lr_scheduler_kwargs)
        return found

    def _share(self, rows: Rows, rank: int) -> list[Rows]:
        size, start = self.share_size, self.share_size * rank
        return [rows[at + start : at + start + size] for at in range(0, len(rows), size * self.devices)]

    def _batches_for(self, rows: int) -> int:
        return math.ceil(rows / (self.share_size * self.devices))


def check_rates(config: OptimizationOptions, total: int = UNKNOWN, warmup: int = 0) -> None:
    """Make sure that the learning rate's schedule can have its arguments, as far as the steps are known.

    Raises:
        OptionError: one is unknown, missing, of another kind or out of its range, or does not fit the training; or the
            warmup is given twice.
    """
    if config.warmup_steps and config.warmup_ratio:
        raise OptionError("warmup_steps and warmup_ratio cannot be combined: give one of them")
    extent = rates.Extent(np.arange(1), total, warmup, config.learning_rate)
    try:
        rates.rates(config.lr_scheduler_type, extent, config.lr_scheduler_kwargs)
    except ValueError as error:
        raise OptionError(f"lr_scheduler_kwargs {config.lr_scheduler_kwargs or 'none'}: {error}") from None


def _without_evaluations(config: TrainConfig) -> OptionError:
    name = "load_best_model_at_end" if config.load_best_model_at_end else "early_stopping_patience"
    why = "eval_strategy is no" if config.eval_strategy == "no" else "the data has no validation split"
    return OptionError(f"{name} needs evaluations, and {why}: leave it out, or evaluate")


def _check_updates(config: TrainConfig) -> None:
    """The first update is the largest: AdamW multiplies it by 1 / (1 - adam_beta1)."""
    factors = {"adam_beta1": 1 / (1 - config.adam_beta1), "weight_decay": config.weight_decay}
    for name, factor in factors.items():
        if config.learning_rate * factor > FLOAT32:
            raise OptionError(
                f"learning_rate {config.learning_rate:g} with {name} {getattr(config, name):g} makes updates beyond "
                "float32: use a lower learning rate"
            )


def _warmup_steps(config: TrainConfig, total: int) -> int:
    steps = config.warmup_steps or math.ceil(total * config.warmup_ratio)
    if config.lr_scheduler_type == "constant" and steps:
        raise OptionError("lr_scheduler_type constant has no warmup: use constant_with_warmup, or leave the warmup out")
    if steps > total:
        raise OptionError(f"warmup_steps {steps} is more than the {with_noun(total, 'step')} of this training")
    return steps
