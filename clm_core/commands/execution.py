"""Carries out the plan of a training: by the process that leads, and by those that train together with it."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

from clm_core import checkpoints
from clm_core.backend import Report, TrainingJob
from clm_core.commands.plan import Plan
from clm_core.data.manifest import TRAIN, VALIDATION
from clm_core.durable import remove
from clm_core.durable import replace as replace_file
from clm_core.durable.disk_errors import writing
from clm_core.errors import StoppedError
from clm_core.hub import publishing
from clm_core.hub.pushing import command_for
from clm_core.models import model_folder
from clm_core.record import LOGS, RESULTS_FILE, RUN_FILE, write_results
from clm_core.results import TrainingResult, versions
from clm_core.runs import output, run_file
from clm_core.runs.advice import Advice
from clm_core.runs.curves import CurveWriter
from clm_core.runs.history import Recorder
from clm_core.runs.spikes import Spikes
from clm_core.screen import signals
from clm_core.screen.endings import of_run
from clm_core.screen.progress import Progress
from clm_core.stopping import STOP_FILE, Stop


def execute(
    plan: Plan, publisher: publishing.Publisher, progress: Progress, *, is_held: bool = False
) -> TrainingResult:
    """Carry out a plan in the folder of its run, which `is_held` if it was locked before; publish what came of it."""
    config, backend = plan.config, plan.request.backend
    with output.claimed(config, backend.name, plan.resume_from, is_held=is_held) as claim:
        stop = _stop(plan, claim.folder)
        with signals.passed_to(stop):
            result = _trained(plan, publisher, progress, claim, stop)
    with of_run(claim.folder):
        if stop.signum is not None:
            upload = f"; to upload it: {command_for(claim.folder)}" if config.push_to_hub else ""
            raise StoppedError(
                f"{signal.Signals(stop.signum).name}: {claim.folder} is finished{upload}", signum=stop.signum
            )
        return publisher.finish(result)


def follow(plan: Plan) -> TrainingResult:
    """Carry out a plan together with the process that leads: the same steps and decisions; nothing of it is kept."""
    assert plan.config.output_dir is not None
    folder, silent = Path(plan.config.output_dir), Progress()
    stop = _stop(plan, folder)
    with tempfile.TemporaryDirectory(prefix="clm-follower-") as nowhere, signals.passed_to(stop, tells=False):
        recorder, model_dir = _recorder(plan, Path(nowhere), silent, stop), Path(nowhere) / "model"
        model_dir.mkdir()
        with recorder.recording():
            plan.request.backend.train(_job(plan, folder, model_dir, recorder, recorder))
    return _result(plan, recorder, folder)


def _trained(
    plan: Plan, publisher: publishing.Publisher, progress: Progress, claim: output.Claim, stop: Stop
) -> TrainingResult:
    folder = claim.folder
    curves = CurveWriter(folder / LOGS) if plan.config.report_to == "tensorboard" else None
    recorder = _recorder(plan, folder, progress, stop, begin=claim.begin, curves=curves)
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
    return Recorder(
        plan.schedule,
        folder,
        progress,
        block_size=config.block_size,
        validation_blocks=0 if validation is None else len(validation),
        bytes_per_token=1.0 if validation is None else prepared.bytes_per_token(VALIDATION),
        curves=curves,
        resume_from=plan.resume_from,
        start_step=plan.first_step,
        changed=plan.start.changed,
        stop=stop,
        begin=begin,
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
        world=plan.world,
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
