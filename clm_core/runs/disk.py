"""Whether a run will fit on its disk: the checkpoints that it keeps, one more while it is written, and the model."""

from dataclasses import dataclass
from pathlib import Path

from clm_core.backend import Model
from clm_core.checkpoints import list_complete
from clm_core.config import TrainConfig
from clm_core.counts import with_noun
from clm_core.durable.disk_errors import free_at, shown, size_of
from clm_core.errors import DiskFullError
from clm_core.models.finite import MODELS
from clm_core.models.parameter_count import count_parameters, count_trained
from clm_core.optimizer import ADAFACTOR, MUON
from clm_core.runs.output import is_resumed
from clm_core.schedule import Schedule

WEIGHT = 4
"""Bytes of a parameter in a model, and of each number that an optimizer keeps: everything is float32."""


@dataclass(frozen=True)
class Sizes:
    """The bytes of what a run writes."""

    checkpoint: int
    model: int


def check_room(
    config: TrainConfig,
    schedule: Schedule,
    model: Model,
    *,
    resume_from: Path | None,
    first_step: int,
    is_transformer: bool,
) -> None:
    """Make sure that a training will not fill its disk, as far as is known before it.

    A run that resumes has checkpoints as large as the one that it resumes from. A new one of a backend that
    `is_transformer` has the optimizer's state of what it trains beside the weights; of another, or of a model whose
    parameters cannot be counted without a framework, nothing is known.

    Raises:
        DiskFullError: less is free than the training needs.
    """
    sizes = _sizes(config, model, resume_from, is_transformer=is_transformer) if config.check_disk else None
    if sizes is None:
        return
    folder = Path(config.output_dir or "runs")
    saves, earlier = _saves(schedule, first_step), list_complete(folder)
    if is_resumed(folder, resume_from):
        needed, freed = _peak(sizes, saves, _limit(config), [_bytes_of(each) for each in earlier]), 0
    else:  # What an earlier run left goes when the first step is made.
        freed = sum(map(_bytes_of, earlier)) + sum(map(_bytes_of, folder.glob(MODELS)))
        needed = _peak(sizes, saves, _limit(config), [])
    try:
        free = free_at(folder) + freed
    except OSError:  # There are file systems that do not say.
        return
    if needed > free:
        raise DiskFullError(
            f"output_dir {folder}: this training needs about {shown(needed)}, for {_parts(config, sizes, saves)}, but "
            f"{shown(free)} are free on the disk: {_ways_out(config, saves)}"
        )


def _sizes(config: TrainConfig, model: Model, resume_from: Path | None, *, is_transformer: bool) -> Sizes | None:
    if resume_from:
        return Sizes(size_of(resume_from), sum(map(size_of, resume_from.glob(MODELS))))
    count = count_parameters(model) if is_transformer else None
    if count is None:
        return None
    return Sizes((count + _count_state(config, model)) * WEIGHT, count * WEIGHT)


def _count_state(config: TrainConfig, model: Model) -> int:
    """The numbers that an optimizer keeps: of Adafactor, next to none; of the matrices of Muon, one for each."""
    if config.optim == ADAFACTOR:
        return 0
    matrices = count_trained(model, config, in_layers=True) if config.optim == MUON else 0
    return 2 * (count_trained(model, config) or 0) - (matrices or 0)


def _saves(schedule: Schedule, first_step: int) -> int:
    """How many checkpoints the steps after the first ones write."""
    if first_step >= schedule.total_steps:
        return 0
    return schedule.saves_until(schedule.total_steps) - schedule.saves_until(first_step)


def _limit(config: TrainConfig) -> int | None:
    """How many checkpoints it keeps at most: the last ones, and the best."""
    return None if config.save_total_limit is None else config.save_total_limit + config.keeps_best


def _bytes_of(path: Path) -> int:
    """What is freed when it is removed: of a link, next to nothing."""
    return 0 if path.is_symlink() else size_of(path)


def _peak(sizes: Sizes, saves: int, limit: int | None, kept: list[int]) -> int:
    """The most bytes that are used at a time, beside what is used now; `kept` are the checkpoints that are there."""
    if limit is None:
        return saves * sizes.checkpoint + sizes.model
    used = peak = 0
    for _ in range(min(saves, len(kept) + limit + 1)):  # From then on, as many go as come.
        used += sizes.checkpoint
        peak = max(peak, used)
        kept = [*kept, sizes.checkpoint]
        used -= sum(kept[:-limit])
        kept = kept[-limit:]
    return max(peak, used + sizes.model)


def _parts(config: TrainConfig, sizes: Sizes, saves: int) -> str:
    model = f"the model of {shown(sizes.model)}"
    if not saves:
        return model
    limit = _limit(config)
    if limit is None or saves <= limit:
        return f"{with_noun(saves, 'checkpoint')} of {shown(sizes.checkpoint)} and {model}"
    return f"checkpoints of {shown(sizes.checkpoint)}, of which it keeps {limit} while it writes another, and {model}"


def _ways_out(config: TrainConfig, saves: int) -> str:
    limit = config.save_total_limit
    fewer = "" if not saves or limit == 1 else f"lower --save-total-limit {'none' if limit is None else limit}, "
    return f"{fewer}choose a folder on another disk with --output-dir, or start all the same with --no-check-disk"
