"""`clm train`: plan a training, have the backend execute it, and write the results."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clm_core import checkpoints
from clm_core.backend import Blocks, Model, Report, TrainingJob
from clm_core.commands import summary
from clm_core.commands.call import Call, code_of_upload
from clm_core.commands.generate import generate
from clm_core.config import TrainConfig
from clm_core.data.fetching import fetch
from clm_core.data.prepared import TRAIN, VALIDATION, Prepared
from clm_core.durable import remove
from clm_core.durable import replace as replace_file
from clm_core.durable.disk_errors import writing
from clm_core.errors import ClmError, OptionError, StoppedError
from clm_core.hub import publishing
from clm_core.hub.pushing import command_for
from clm_core.inputs import announce, check_type, check_undamaged, model_to_train, open_whole, prepared_for
from clm_core.installation import install_extra
from clm_core.models import model_folder
from clm_core.models.ignored_fields import attention
from clm_core.models.tokenizers import load_tokenizer
from clm_core.options import Given, resolve, shown
from clm_core.options.resolve import DATA, Request
from clm_core.record import LOGS, RESULTS_FILE, RUN_FILE, write_results
from clm_core.results import GenerationResult, TrainingResult, versions
from clm_core.runs import output, run_file
from clm_core.runs.advice import Advice
from clm_core.runs.changes import lines
from clm_core.runs.curves import CurveWriter
from clm_core.runs.disk import check_room
from clm_core.runs.history import Recorder
from clm_core.runs.spikes import Spikes
from clm_core.runs.start import Start, find_start, folder_of
from clm_core.sample import PROMPT
from clm_core.schedule import Schedule
from clm_core.screen import signals
from clm_core.screen.endings import of_run
from clm_core.screen.exit_codes import ExitCode
from clm_core.screen.progress import Progress
from clm_core.stopping import STOP_FILE, Stop


def run(call: Call) -> ExitCode:
    """Carry out the command line."""
    with call.session() as (backend, progress):
        request = resolve.training(call.given, file=call.config, backend=backend)
        call.start(backend, request.config)
        result = train(request, progress)
        completion = None if call.json else _complete_sample(request, result)
    call.print(result, lambda: summary.of_training(request.config, result, completion))
    return code_of_upload(result.hub)


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

    @property
    def config(self) -> TrainConfig:
        """The options of the training."""
        return self.request.config

    @property
    def resume_from(self) -> Path | None:
        """The checkpoint to resume from."""
        return self.start.resume_from

    def blocks(self, split: str) -> Blocks | None:
        """The blocks of a split; None where the data has no such split."""
        return self.prepared.blocks(split, self.config.block_size) if self.prepared.has(split) else None


def train(request: Request[TrainConfig], progress: Progress) -> TrainingResult:
    """Train a model, evaluate it, and write it with all that belongs to it to the output folder."""
    folder = folder_of(request)
    request = replace(request, config=replace(request.config, output_dir=None if folder is None else str(folder)))
    with output.held(folder) as is_held:
        start = check_output(request, progress)  # Before a repository is made on the Hub.
        publisher = publishing.publisher(request.config, progress)
        if start.is_done:
            return _already_finished(start, publisher, progress)
        planned = plan(request, start, progress)
        if start.finished and start.finished.steps == planned.schedule.total_steps:
            return _already_finished(start, publisher, progress)
        return execute(planned, publisher, progress, is_held=is_held)


def plan(request: Request[TrainConfig], start: Start, progress: Progress) -> Plan:
    """Decide everything about a training: read its model and its tokenizer, prepare its data, lay out its steps.

    `start` is what `check_output` returned.

    Raises:
        ClmError: an option, the data, the model or the checkpoint cannot be used as requested.
    """
    config, backend = request.config, request.backend
    check_undamaged(config)
    announce(config, progress)
    tokenizer = load_tokenizer(config)
    model = model_to_train(config, tokenizer, progress)
    check_type(model.architecture, backend)
    attention(model.architecture, backend.name)  # Rejected now, not after the preparation.
    prepared = prepared_for(config, model, tokenizer, progress, need=TRAIN)
    schedule = Schedule.from_config(
        config,
        blocks=prepared.count(TRAIN, config.block_size).blocks,
        data=prepared.manifest.splits[TRAIN].sha256,
        validation=prepared.has(VALIDATION),
    )
    first_step = _first_step(request, start, schedule, progress) if start.resume_from else 0
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
    )


def execute(
    plan: Plan, publisher: publishing.Publisher, progress: Progress, *, is_held: bool = False
) -> TrainingResult:
    """Carry out a plan in the folder of its run, which `is_held` if it was locked before; publish what came of it."""
    config, backend = plan.config, plan.request.backend
    with output.claimed(config, backend.name, plan.resume_from, is_held=is_held) as claim:
        stop = Stop(claim.folder / STOP_FILE, saves=config.save_on_signal)
        with signals.passed_to(stop):
            result = _trained(plan, publisher, progress, claim, stop)
    with of_run(claim.folder):
        if stop.signum is not None:
            upload = f"; to upload it: {command_for(claim.folder)}" if config.push_to_hub else ""
            raise StoppedError(
                f"{signal.Signals(stop.signum).name}: {claim.folder} is finished{upload}", signum=stop.signum
            )
        return publisher.finish(result)


def _trained(
    plan: Plan, publisher: publishing.Publisher, progress: Progress, claim: output.Claim, stop: Stop
) -> TrainingResult:
    folder = claim.folder
    recorder = _recorder(plan, claim, progress, stop)
    with _advice(plan, folder, recorder).shown():
        remove(folder / RESULTS_FILE)  # Without results, a run is not finished, whatever happens from here on.
        text = run_file.of_run(plan.request)
        with writing(folder / RUN_FILE, needs=lambda: len(text)):
            replace_file(folder / RUN_FILE, text)
        with publisher.following(folder, recorder, stop) as report, output.staging(folder) as model_dir:
            with recorder.recording():
                job = _job(plan, folder, model_dir, report, recorder)
                if plan.resume_from:  # The process before may have ended just before it did so.
                    checkpoints.prune(job, plan.first_step)
                plan.request.backend.train(job)
            model_folder.complete(model_dir, plan.tokenizer, plan.model.architecture)
        result = publisher.waiting(_result(plan, recorder, folder))
        with writing(folder / RESULTS_FILE):
            write_results(folder, result.to_dict())
        remove(folder / STOP_FILE)  # It came too late.
    return result


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


def _already_finished(start: Start, publisher: publishing.Publisher, progress: Progress) -> TrainingResult:
    """The result of a run that there is nothing to add to, uploaded if that is still to be done."""
    result = start.finished
    assert result is not None
    progress.say(
        f"{result.output_dir} has already finished its {result.steps} steps; more --max-steps or --num-train-epochs "
        "train it longer"
    )
    for name, (was, now) in start.changed.items():
        progress.say(f"{name} {shown(now)} has no effect any more: it was trained with {shown(was)}")
    if result.hub and result.hub.state == "uploaded":
        return result
    with of_run(result.output_dir):
        return publisher.finish(publisher.waiting(result))


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
    for line in lines(start.changed):
        progress.say(line)
    return step


def _recorder(plan: Plan, claim: output.Claim, progress: Progress, stop: Stop) -> Recorder:
    config, prepared, folder = plan.config, plan.prepared, claim.folder
    validation = plan.blocks(VALIDATION)
    return Recorder(
        plan.schedule,
        folder,
        progress,
        block_size=config.block_size,
        validation_blocks=0 if validation is None else len(validation),
        bytes_per_token=1.0 if validation is None else prepared.bytes_per_token(VALIDATION),
        curves=CurveWriter(folder / LOGS) if config.report_to == "tensorboard" else None,
        resume_from=plan.resume_from,
        start_step=plan.first_step,
        changed=plan.start.changed,
        stop=stop,
        begin=claim.begin,
        spikes=Spikes(config.stop_on_loss_spike, config.loss_spike_patience),
    )


def _advice(plan: Plan, folder: Path, recorder: Recorder) -> Advice:
    backend = plan.request.backend
    rate = None if "learning_rate" in backend.unsupported else plan.config.learning_rate
    return Advice(folder=folder, recorder=recorder, backend=backend.name, learning_rate=rate)


def _job(plan: Plan, folder: Path, model_dir: Path, report: Report, recorder: Recorder) -> TrainingJob:
    def add_to_checkpoint(checkpoint: Path) -> None:
        model_folder.complete(checkpoint, plan.tokenizer, plan.model.architecture)
        recorder.add_to_checkpoint(checkpoint)
        (checkpoint / RUN_FILE).write_text(run_file.shared(plan.request), encoding="utf-8")

    train = plan.blocks(TRAIN)
    assert train is not None
    return TrainingJob(
        model=plan.model,
        train=train,
        validation=plan.blocks(VALIDATION),
        schedule=plan.schedule,
        config=plan.config,
        options=plan.request.backend_options,
        output_dir=folder,
        model_dir=model_dir,
        resume_from=plan.resume_from,
        report=report,
        backend=plan.request.backend.name,
        add_to_checkpoint=add_to_checkpoint,
        stop=recorder.stop,
        evaluation_due=recorder.evaluation_due,
    )


def _result(plan: Plan, recorder: Recorder, folder: Path) -> TrainingResult:
    return TrainingResult(
        backend=plan.request.backend.name,
        output_dir=folder,
        steps=recorder.step,
        epochs=recorder.step / plan.schedule.steps_per_epoch,
        tokens_trained=recorder.tokens_trained,
        seconds=recorder.seconds,
        before=recorder.before,
        after=recorder.after,
        history=tuple(recorder.history),
        ledger=plan.prepared.ledger(plan.config.block_size),
        checkpoint=recorder.checkpoint,
        versions=versions(plan.request.backend.requires),
    )


def _complete_sample(request: Request[TrainConfig], result: TrainingResult) -> GenerationResult | None:
    """A completion by the model that was trained on the built-in sample."""
    if not summary.on_sample(request.config):
        return None
    wanted = {"model_name_or_path": str(result.output_dir), "max_new_tokens": min(48, request.config.block_size // 2)}
    given = {name: Given(value, "the summary") for name, value in wanted.items()}
    try:
        found = generate(resolve.generation(given, file=None, backend=request.backend), PROMPT, Progress())
        return found if found.completion.strip() else None
    except ClmError:  # The run is written; a missing completion should not fail it.
        return None
