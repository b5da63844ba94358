"""The plan of a training: everything that is decided, checked and prepared before anything of the run is written."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clm_core import checkpoints
from clm_core.backend import ALONE, Blocks, Model, Setup, World
from clm_core.config import TrainConfig
from clm_core.counts import with_noun
from clm_core.data.fetching import fetch
from clm_core.data.prepared import TRAIN, VALIDATION, Prepared
from clm_core.errors import OptionError
from clm_core.inputs import (
    announce,
    check_masks,
    check_type,
    check_undamaged,
    from_checkpoint,
    model_to_train,
    open_whole,
    prepared_for,
)
from clm_core.installation import install_extra
from clm_core.models.ignored_fields import attention
from clm_core.models.tokenizers import load_tokenizer
from clm_core.options import shown
from clm_core.options.layers import DATA
from clm_core.options.resolve import Request
from clm_core.runs import output, run_file
from clm_core.runs.changes import OF_STEPS, lines, without_effect
from clm_core.runs.disk import check_room
from clm_core.runs.fitting import check_can_be_found
from clm_core.runs.start import Start, find_start
from clm_core.schedule import Schedule
from clm_core.screen.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A training before its first step: everything is decided and ready, and nothing of the run is written."""

    request: Request[TrainConfig]
    tokenizer: Any
    model: Model
    prepared: Prepared
    schedule: Schedule
    start: Start = field(default_factory=Start)
    """Where it starts."""
    first_step: int
    """The steps that were made before."""
    world: World = ALONE

    @property
    def config(self) -> TrainConfig:
        """The options of the training."""
        return self.request.config

    @property
    def resume_from(self) -> Path | None:
        """The checkpoint to resume from."""
        return self.start.resume_from

    @property
    def is_done(self) -> bool:
        """Whether the run that it is about has made all of its steps, and is whole."""
        return self.start.finished is not None and self.start.finished.steps == self.schedule.total_steps

    def blocks(self, split: str) -> Blocks | None:
        """The blocks of a split; None where the data has no such split."""
        return self.prepared.blocks(split, self.config.block_size) if self.prepared.has(split) else None


def check_output(request: Request[TrainConfig], progress: Progress) -> Start:
    """Make sure that the run can be written, before anything slow starts, and return where it starts.

    Raises:
        ClmError: the checkpoint, the prepared data or the output folder cannot be used as requested.
    """
    config = request.config
    if config.report_to != "none" and find_spec(config.report_to) is None:
        raise OptionError(f"report_to {config.report_to}: not installed: {install_extra(config.report_to)}")
    if config.prepared:
        open_whole(fetch(config.prepared))
    folder = Path(config.output_dir) if config.output_dir else None
    start = find_start(request, folder, progress.say)
    if folder and not start.is_done:
        overwrite = output.replaces(config, start.resume_from)
        output.check(folder, overwrite=overwrite, resume_from=start.resume_from)
        if overwrite:
            run_file.check_keeps_inputs(config, folder)
    return start


def plan(request: Request[TrainConfig], start: Start, progress: Progress, world: World = ALONE) -> Plan:
    """Decide everything about a training: read its model and its tokenizer, prepare its data, lay out its steps.

    `start` is what `check_output` returned. Each of the processes that train together does the same.

    Raises:
        ClmError: an option, the data, the model or the checkpoint cannot be used as requested.
    """
    config, backend = request.config, request.backend
    check_can_be_found(config, world)
    check_undamaged(config, progress)
    announce(config, progress)
    named = from_checkpoint(config, start.resume_from, progress) if start.resume_from else config
    tokenizer = load_tokenizer(named)
    model = model_to_train(named, tokenizer, progress, resume_from=start.resume_from)
    check_type(model, backend)
    attention(model.architecture, backend.name)  # Rejected now, not after the preparation.
    options, resume_from = request.backend_options, start.resume_from
    backend.check(Setup(model=model, config=config, options=options, resume_from=resume_from, world=world))
    prepared = prepared_for(config, model, tokenizer, progress, need=TRAIN)
    check_masks(prepared, backend)
    schedule = Schedule.from_config(
        config,
        prepared.count(TRAIN, config.block_size).blocks,
        prepared.manifest.splits[TRAIN].content,
        validation=prepared.has(VALIDATION),
        devices=world.size,
        of_blocks=prepared.predicted(TRAIN, config.block_size),
    )
    first_step = _first_step(request, start, schedule, progress) if start.resume_from else 0
    if first_step == schedule.total_steps:
        request, start = _as_trained(request, start)
    check_room(
        config,
        schedule,
        model,
        resume_from=start.resume_from,
        first_step=first_step,
        is_transformer=backend.incomparable is None,
    )
    return Plan(
        request=request,
        tokenizer=tokenizer,
        model=model,
        prepared=prepared,
        schedule=schedule,
        start=start,
        first_step=first_step,
        world=world,
    )


def shape_of_step(schedule: Schedule) -> str:
    """What a step is made of, and on how many devices."""
    size, devices, batches = schedule.share_size, schedule.devices, schedule.accumulation
    whole = size * devices * batches == schedule.step_blocks
    return (
        f"a step: {with_noun(schedule.step_blocks, 'block')} = {with_noun(devices, 'device')} x "
        f"{with_noun(batches, 'batch', 'batches')} of {'' if whole else 'up to '}{size}"
    )


def _first_step(request: Request[TrainConfig], start: Start, schedule: Schedule, progress: Progress) -> int:
    """The step of the checkpoint, once it is sure that the training can resume from it; says what that means."""
    checkpoint, config = start.resume_from, request.config
    assert checkpoint is not None
    names = [name for name in DATA if getattr(config, name)]
    data = ", ".join(f"{name} {shown(getattr(config, name))}" for name in names) or "the built-in sample"
    step = checkpoints.check_continues(checkpoint, schedule, backend=request.backend.name, data=data)
    if (writer := checkpoints.backend_of(checkpoint)) != request.backend.name:
        progress.say(
            f"{checkpoint} was written by backend {writer}: everything is resumed, but for the masks of dropout, which "
            "each framework draws in its own way"
        )
    left = "" if step < schedule.total_steps else ": only what follows the last one is left to do"
    progress.say(f"resuming {checkpoints.run_of(checkpoint)} at step {step:,} of {schedule.total_steps:,}{left}")
    for line in without_effect(start.changed) if left else lines(start.changed):
        progress.say(line)
    return step


def _as_trained(request: Request[TrainConfig], start: Start) -> tuple[Request[TrainConfig], Start]:
    """A training without a step left, with the options of its steps as they were when these were made."""
    was = {name: pair[0] for name, pair in start.changed.items() if name in OF_STEPS}
    changed = {name: pair for name, pair in start.changed.items() if name not in OF_STEPS}
    return replace(request, config=replace(request.config, **was)), replace(start, changed=changed)
