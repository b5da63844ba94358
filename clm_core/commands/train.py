"""`clm train`: plan a training, have the backend execute it, and write the results."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clm_core import checkpoints, options
from clm_core.backend import Blocks, Model, Report, TrainingJob
from clm_core.commands import summary
from clm_core.commands.call import Call, code_of_upload
from clm_core.commands.generate import generate
from clm_core.config import TrainConfig
from clm_core.data.fetching import fetch
from clm_core.data.prepared import TRAIN, VALIDATION, Prepared
from clm_core.data.readers.remote import is_remote
from clm_core.durable import write
from clm_core.errors import ClmError, OptionError, OutputError
from clm_core.hub import publishing
from clm_core.inputs import announce, check_type, model_to_train, open_whole, prepared_for
from clm_core.installation import install_extra
from clm_core.models import model_folder
from clm_core.models.ignored_fields import attention
from clm_core.models.tokenizers import load_tokenizer
from clm_core.options import Given, resolve
from clm_core.options.resolve import Request
from clm_core.record import LOGS, RESULTS_FILE, RUN_FILE
from clm_core.redaction import without_credentials
from clm_core.results import GenerationResult, TrainingResult, versions
from clm_core.runs import output
from clm_core.runs.curves import CurveWriter
from clm_core.runs.history import Recorder
from clm_core.sample import PROMPT
from clm_core.schedule import Schedule
from clm_core.screen.endings import of_run
from clm_core.screen.exit_codes import ExitCode
from clm_core.screen.progress import Progress

LOCAL = ("train_file", "validation_file", "prepared", "model_name_or_path", "tokenizer_name", "config_name")
"""The options that may name something on this machine."""


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
    resume_from: Path | None
    """The checkpoint to resume from."""
    first_step: int
    """The steps that it has made."""

    @property
    def config(self) -> TrainConfig:
        """The options of the training."""
        return self.request.config

    def blocks(self, split: str) -> Blocks | None:
        """The blocks of a split; None where the data has no such split."""
        return self.prepared.blocks(split, self.config.block_size) if self.prepared.has(split) else None


def train(request: Request[TrainConfig], progress: Progress) -> TrainingResult:
    """Train a model, evaluate it, and write it with all that belongs to it to the output folder."""
    resume_from = check_output(request.config)  # Before a repository is made on the Hub.
    publisher = publishing.publisher(request.config, progress)
    return execute(plan(request, resume_from, progress), publisher, progress)


def plan(request: Request[TrainConfig], resume_from: Path | None, progress: Progress) -> Plan:
    """Decide everything about a training: read its model and its tokenizer, prepare its data, lay out its steps.

    `resume_from` is what `check_output` returned.

    Raises:
        ClmError: an option, the data, the model or the checkpoint cannot be used as requested.
    """
    config, backend = request.config, request.backend
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
    first_step = checkpoints.check_continues(resume_from, schedule, backend=backend.name) if resume_from else 0
    if resume_from and (writer := checkpoints.backend_of(resume_from)) != backend.name:
        progress.say(
            f"{resume_from} was written by backend {writer}: everything is resumed except dropout, which is drawn anew"
        )
    return Plan(
        request=request,
        tokenizer=tokenizer,
        model=model,
        prepared=prepared,
        schedule=schedule,
        resume_from=resume_from,
        first_step=first_step,
    )


def execute(plan: Plan, publisher: publishing.Publisher, progress: Progress) -> TrainingResult:
    """Carry out a plan in the folder of its run, and publish what came of it."""
    with output.claimed(plan.config, plan.request.backend.name, plan.resume_from) as claim:
        write(claim.folder / RUN_FILE, _run_file(plan.request))
        recorder = _recorder(plan, claim.folder, progress)
        with publisher.following(claim.folder, recorder) as report, output.staging(claim.folder) as model_dir:
            with recorder.recording(), _noting(claim, recorder, plan):
                plan.request.backend.train(_job(plan, claim.folder, model_dir, report, recorder))
            model_folder.complete(model_dir, plan.tokenizer, plan.model.architecture)
        result = publisher.waiting(_result(plan, recorder, claim.folder))
        write(claim.folder / RESULTS_FILE, result.to_text())
    with of_run(claim.folder):
        return publisher.finish(result)


def check_output(config: TrainConfig) -> Path | None:
    """Make sure that the run can be written, before anything slow starts, and return the checkpoint to resume from.

    Raises:
        ClmError: the checkpoint, the prepared data or the output folder cannot be used as requested.
    """
    resume_from = checkpoints.find(Path(config.resume_from_checkpoint)) if config.resume_from_checkpoint else None
    if resume_from and config.overwrite_output_dir:
        raise OptionError("overwrite_output_dir and resume_from_checkpoint cannot be combined: give one of them")
    if config.report_to != "none" and find_spec(config.report_to) is None:
        raise OptionError(f"report_to {config.report_to}: not installed: {install_extra(config.report_to)}")
    if config.prepared:
        open_whole(fetch(config.prepared))
    if config.output_dir:
        folder = Path(config.output_dir)
        output.check(folder, overwrite=config.overwrite_output_dir, resume_from=resume_from)
        if config.overwrite_output_dir:
            _check_keeps_inputs(config, folder)
    return resume_from


def _check_keeps_inputs(config: TrainConfig, folder: Path) -> None:
    """Make sure that the folder to be overwritten contains nothing that the run starts from."""
    for name in LOCAL:
        for path in filter(_is_local, _listed(getattr(config, name))):
            resolved = Path(path).resolve()
            if folder.resolve() in (resolved, *resolved.parents):
                raise OutputError(f"output_dir {folder} would be overwritten, but {name} {path} is in it")


def _recorder(plan: Plan, folder: Path, progress: Progress) -> Recorder:
    config, prepared = plan.config, plan.prepared
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
    )


@contextmanager
def _noting(claim: output.Claim, recorder: Recorder, plan: Plan) -> Iterator[None]:
    """Say of the folder, however the training ends, whether a step was made."""
    try:
        yield
    finally:
        claim.begun = recorder.step > plan.first_step


def _job(plan: Plan, folder: Path, model_dir: Path, report: Report, recorder: Recorder) -> TrainingJob:
    def add_to_checkpoint(checkpoint: Path) -> None:
        model_folder.complete(checkpoint, plan.tokenizer, plan.model.architecture)
        recorder.add_to_checkpoint(checkpoint)

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


def _run_file(request: Request[TrainConfig]) -> str:
    """The options of a run, so that it can be repeated, resumed and evaluated from any folder."""
    config = request.config
    local: dict[str, Any] = {
        name: tuple(map(_absolute, value)) if isinstance(value, tuple) else _absolute(value)
        for name in LOCAL
        if (value := getattr(config, name))
    }
    once: dict[str, Any] = {"overwrite_output_dir": False, "overwrite_cache": False, "resume_from_checkpoint": None}
    return options.to_yaml(replace(config, **local, **once), {request.backend.name: request.backend_options})


def _absolute(path: str) -> str:
    """An existing path or a glob as an absolute one; a name on the Hub or a URL as it is.

    Credentials in a URL are left out.
    """
    if is_remote(path):
        return without_credentials(path)
    return os.path.abspath(path) if _is_local(path) else path  # noqa: PTH100  (a glob is no path to resolve)


def _is_local(name: str) -> bool:
    """Whether this is an existing path or a glob, not a name on the Hub."""
    return Path(name).exists() or any(sign in name for sign in "*?[")


def _listed(value: Any) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


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
