"""Carries out the plan of a training: by the process that leads, and by those that train together with it."""

from __future__ import annotations

import functools
import signal
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from clm_core import checkpoints
from clm_core.backend import Report, TrainingJob
from clm_core.checkpoints import run_of
from clm_core.commands.plan import Plan
from clm_core.config.values import seconds
from clm_core.data.manifest import TRAIN, VALIDATION
from clm_core.durable import remove
from clm_core.durable import replace as replace_file
from clm_core.durable.disk_errors import writing
from clm_core.errors import StoppedError
from clm_core.hub import publishing
from clm_core.hub.pushing import command_for
from clm_core.marker import PREFIX
from clm_core.models import model_folder
from clm_core.record import LOGS, RESULTS_FILE, RUN_FILE, write_results
from clm_core.results import TrainingResult, versions
from clm_core.runs import output, run_file
from clm_core.runs.advice import Advice
from clm_core.runs.agreement import in_common
from clm_core.runs.best import Best, bring, checkpoint_of, take_model
from clm_core.runs.curves import CurveWriter
from clm_core.runs.fitting import train_in_memory
from clm_core.runs.history import Recorder
from clm_core.runs.restoring import restore
from clm_core.runs.spikes import Spikes
from clm_core.runs.start import begun_from
from clm_core.runs.utilization import Utilization, median_of
from clm_core.screen import signals
from clm_core.screen.endings import of_run
from clm_core.screen.progress import Progress
from clm_core.stopping import STOP_FILE, Stop


def execute(
    plan: Plan, publisher: publishing.Publisher, progress: Progress, *, is_held: bool = False
) -> TrainingResult:
    """Carry out a plan in the folder of its run, which `is_held` if it was locked before; publish what came of it."""
    config, backend = plan.config, plan.request.backend
    since = plan.request.since
    with output.claimed(config, backend.name, plan.resume_from, since=since, is_held=is_held) as claim:
        stop = _stop(plan, claim.folder)
        with signals.passed_to(stop):
            result = _trained(plan, publisher, progress, claim, stop)
    with of_run(claim.folder):
        if stop.signum is not None:
            upload = f"; to upload it: {command_for(claim.folder)}" if config.push_to_hub else ""
            done = "has ended, as its time was up" if result.stopped_by == "time" else "is finished"
            raise StoppedError(f"{signal.Signals(stop.signum).name}: {claim.folder} {done}{upload}", signum=stop.signum)
        return publisher.finish(result)


def follow(plan: Plan) -> TrainingResult:
    """Carry out a plan together with the process that leads: the same steps and decisions; nothing of it is kept."""
    assert plan.config.output_dir is not None
    folder, silent = Path(plan.config.output_dir), Progress()
    stop = _stop(plan, folder)
    with tempfile.TemporaryDirectory(prefix="clm-follower-") as nowhere, signals.passed_to(stop, tells=False):
        recorder, model_dir = _recorder(plan, Path(nowhere), silent, stop), Path(nowhere) / "model"
        model_dir.mkdir()
        _train(plan, recorder, _job(plan, folder, model_dir, recorder, recorder))
    return _result(plan, recorder, folder)


def _trained(
    plan: Plan, publisher: publishing.Publisher, progress: Progress, claim: output.Claim, stop: Stop
) -> TrainingResult:
    folder = claim.folder
    curves = CurveWriter(folder / LOGS) if plan.config.report_to == "tensorboard" else None
    is_resumed = output.is_resumed(folder, plan.resume_from)
    other = begun_from(folder) if is_resumed else plan.resume_from
    text = run_file.of_run(plan.request, begun_from=other)

    def begin() -> None:
        if is_resumed and not claim.begun:
            _write_options(folder, text)  # Those from before stay until a step is made.
        claim.begin()

    recorder = _recorder(plan, folder, progress, stop, begin=begin, curves=curves)
    with _advice(plan, folder, recorder, other).shown():
        remove(folder / RESULTS_FILE)  # Without results, a run is not finished, whatever happens from here on.
        if not is_resumed:
            _write_options(folder, text)
        with publisher.following(folder, recorder, stop) as report, output.staging(folder) as model_dir:
            job = _job(plan, folder, model_dir, report, recorder)
            if plan.resume_from:
                _keep_best(plan, recorder, folder)
            _train(plan, recorder, job)
            begin()  # Where no step was left to make.
            checkpoints.prune(job, recorder.step)  # The process before may have ended just before it did so.
            if checkpoint := _of_model(plan, recorder, folder):
                take_model(checkpoint, model_dir)
            model_folder.complete(model_dir, plan.tokenizer, plan.model.architecture)
        restore(folder / RUN_FILE, text, progress.say)
        recorder.restore()
        result = publisher.waiting(_result(plan, recorder, folder))
        write_results(folder, result.to_dict())
        remove(folder / STOP_FILE)  # It came too late.
    return result


def _write_options(folder: Path, text: str) -> None:
    with writing(folder / RUN_FILE, needs=lambda: len(text)):
        replace_file(folder / RUN_FILE, text)


def _train(plan: Plan, recorder: Recorder, job: TrainingJob) -> None:
    """Have the backend train; a run that was resumed after its last step may be over before."""
    with recorder.recording():
        if recorder.is_over:
            recorder.stopped_by = "early_stopping"
            return
        with recorder.until_it_ends():
            train_in_memory(plan.request.backend, job, recorder, recorder.progress.say)


def _keep_best(plan: Plan, recorder: Recorder, folder: Path) -> None:
    """Where a run is resumed from another folder, have its best checkpoint so far in this one as well."""
    assert plan.resume_from is not None
    step = recorder.best.step if recorder.best else None
    if step is not None and (found := checkpoint_of(step, plan.resume_from)):
        bring(found, step, folder)


def _of_model(plan: Plan, recorder: Recorder, folder: Path) -> Path | None:
    """The checkpoint whose model is to be that of the run; None if it is what the backend has written."""
    best = recorder.best.step if recorder.best and plan.config.load_best_model_at_end else None
    if best is not None and (recorder.stopped_by or best != recorder.step):
        return folder / f"{PREFIX}{best}"
    return recorder.checkpoint if recorder.stopped_by else None


def _stop(plan: Plan, folder: Path) -> Stop:
    return Stop(folder / STOP_FILE, saves=plan.config.save_on_signal, together=not plan.world.is_one_process)


def _recorder(
    plan: Plan,
    folder: Path,
    progress: Progress,
    stop: Stop,
    *,
    begin: Callable[[], None] = lambda: None,
    curves: CurveWriter | None = None,
) -> Recorder:
    config, prepared = plan.config, plan.prepared
    validation = plan.blocks(VALIDATION)
    recorder = Recorder(
        plan.schedule,
        folder,
        progress,
        block_size=config.block_size,
        of_blocks=prepared.predicted(TRAIN, config.block_size),
        validation_blocks=0 if validation is None else len(validation),
        bytes_per_token=1.0 if validation is None else prepared.bytes_per_token(VALIDATION),
        curves=curves,
        resume_from=plan.resume_from,
        start_step=plan.first_step,
        changed=plan.start.changed,
        stop=stop,
        begin=begin,
        spikes=Spikes(config.stop_on_loss_spike, config.loss_spike_patience),
        best=Best.of(config),
        seconds=seconds(config.max_train_time) if config.max_train_time else None,
        utilization=functools.cache(lambda: _utilization(plan)),
    )
    best = recorder.best.step if recorder.best and config.load_best_model_at_end else None
    if recorder.best and plan.resume_from and best is not None and not checkpoint_of(best, plan.resume_from):
        progress.say(
            f"{_without(best, plan, run_of(plan.resume_from))}: the best is looked for among those that follow"
        )
        recorder.best.forget()
    return recorder


def _without(step: int, plan: Plan, run: Path) -> str:
    """Why the best checkpoint is not in a run: one that nobody looked for was hardly written."""
    options = ("load_best_model_at_end", "early_stopping_patience")
    if any(plan.start.changed.get(name, (getattr(plan.config, name),))[0] for name in options):
        return f"{PREFIX}{step}, the best of {run}, is not there any more"
    return f"{run} was best at step {step:,}, of which it kept no checkpoint, as it did not look for the best until now"


def _utilization(plan: Plan) -> Utilization | None:
    return Utilization.of(plan.model, plan.config, plan.request.backend.device_name(), plan.world.size)


def _advice(plan: Plan, folder: Path, recorder: Recorder, other: Path | None) -> Advice:
    name, rate = plan.request.backend.name, functools.partial(_slower_rate, plan)
    return Advice(folder=folder, recorder=recorder, backend=name, slower_rate=rate, begun_from=other)


def _slower_rate(plan: Plan) -> float | None:
    """Half of the learning rate; None if the backend has none, or the schedule does not take it."""
    if "learning_rate" in plan.request.backend.unsupported:
        return None
    slower = replace(plan.schedule, learning_rate=plan.config.learning_rate / 2)
    try:
        slower.learning_rate_at(0)
    except ValueError:  # Such as a lowest rate above it.
        return None
    return slower.learning_rate


def _job(plan: Plan, folder: Path, model_dir: Path, report: Report, recorder: Recorder) -> TrainingJob:
    def add_to_checkpoint(checkpoint: Path) -> None:
        model_folder.complete(checkpoint, plan.tokenizer, plan.model.architecture)
        recorder.add_to_checkpoint(checkpoint)
        (checkpoint / RUN_FILE).write_text(run_file.shared(plan.request), encoding="utf-8")

    train = plan.blocks(TRAIN)
    assert train is not None
    job = TrainingJob(
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
        chosen=recorder.chosen,
        whole={plan.first_step},
        best_step=lambda: recorder.best.step if recorder.best else None,
        evaluation_due=recorder.evaluation_due,
        world=plan.world,
    )
    content = "" if job.validation is None else plan.prepared.manifest.splits[VALIDATION].content
    return replace(job, in_common=in_common(job.source, {"validation data": content}, plan.world))


def _result(plan: Plan, recorder: Recorder, folder: Path) -> TrainingResult:
    best = recorder.best.to_keep() if recorder.best else None
    loaded = best["step"] if best and plan.config.load_best_model_at_end else recorder.step
    return TrainingResult(
        backend=plan.request.backend.name,
        output_dir=folder,
        steps=recorder.step,
        epochs=recorder.step / plan.schedule.steps_per_epoch,
        tokens_trained=recorder.tokens_trained,
        seconds=recorder.seconds,
        before=recorder.before,
        after=recorder.metrics_at(loaded),
        history=tuple(recorder.history),
        ledger=plan.prepared.ledger(plan.config.block_size),
        checkpoint=recorder.checkpoint,
        versions=versions(plan.request.backend.requires),
        chosen=recorder.chosen,
        peak_memory_bytes=recorder.peak_memory_bytes,
        mfu=median_of(recorder.history),
        stopped_by=recorder.stopped_by,
        best=best,
    )
