"""`clm evaluate`: score a model on the validation split."""

import json
import time
from pathlib import Path

from clm_core.backend import BatchScored, EvaluationJob, Event, Model, World
from clm_core.commands import summary
from clm_core.commands.call import Call
from clm_core.config import EvaluateConfig
from clm_core.data.manifest import VALIDATION
from clm_core.data.named_files import local_files
from clm_core.data.prepared import Prepared
from clm_core.durable import write
from clm_core.inputs import (
    announce,
    check_masks,
    check_type,
    check_undamaged,
    named_model,
    prepared_for,
    with_dtype,
)
from clm_core.launch import mailbox, processes, worker
from clm_core.launch.devices import awaited, launcher_of, world_of
from clm_core.models.configurations import check_fits
from clm_core.models.ignored_fields import attention
from clm_core.models.tokenizers import load_tokenizer
from clm_core.options import resolve
from clm_core.options.resolve import Request
from clm_core.results import EvaluationResult
from clm_core.runs.agreement import in_common
from clm_core.runs.output_file import check_output_file
from clm_core.screen.exit_codes import ExitCode
from clm_core.screen.progress import Progress


def run(call: Call) -> ExitCode:
    """Carry out the command line."""
    with call.session() as (backend, progress):
        worker.begin(backend)
        request = resolve.evaluation(call.given, file=call.config, backend=backend)
        call.start(backend, request.config)
        result = evaluate(request, progress, call.for_launcher, verbose=call.verbose)
    return call.end(result, lambda: summary.of_evaluation(result)) if result else ExitCode.DONE


def evaluate(
    request: Request[EvaluateConfig], progress: Progress, for_launcher: tuple[str, ...] = (), *, verbose: bool = False
) -> EvaluationResult | None:
    """Score the validation split; None on a machine of several that is not the one of the process that leads.

    On several devices, processes may be started for it, by a launcher that gets `for_launcher`.
    """
    config, backend = request.config, request.backend
    if config.output_file:
        check_output_file(config.output_file, inputs=local_files(config))
    if launcher := launcher_of(backend, config, for_launcher):
        if processes.on_several_machines(for_launcher):
            progress.say(processes.WAITING)
        return _launched(request, launcher, progress, verbose=verbose)
    world = world_of(backend, config)
    worker.join(world)
    result = _scored(request, progress if world.leads else Progress(), world)
    if config.output_file and world.leads:
        write(Path(config.output_file), result.to_text())
    return result


def _launched(
    request: Request[EvaluateConfig], launcher: list[str], progress: Progress, *, verbose: bool
) -> EvaluationResult | None:
    """Prepare the data once, and have it scored by the processes that a launcher starts."""
    with processes.place() as place:
        _, prepared = _inputs(request, progress)
        mailbox.put(mailbox.PREPARED, str(prepared.folder.absolute()), place)
        mailbox.put(mailbox.SAID, "inputs", place)
        processes.run(place, launcher, "evaluate", request, progress, verbose=verbose)
        result = mailbox.take(mailbox.RESULT, place)
    if result is None:
        progress.say("the process that leads is on another machine, and has the result")
    return EvaluationResult(**json.loads(result)) if result else None


def _inputs(request: Request[EvaluateConfig], progress: Progress) -> tuple[Model, Prepared]:
    config, backend = request.config, request.backend
    check_undamaged(config, progress)
    announce(config, progress)
    model = named_model(config, progress, seed=config.seed)
    check_type(model, backend)
    attention(model.architecture, backend.name)
    tokenizer = load_tokenizer(config)
    check_fits(model.architecture, tokenizer, config.block_size)
    prepared = prepared_for(config, model, tokenizer, progress, need=VALIDATION)
    check_masks(prepared, backend)
    return model, prepared


def _scored(request: Request[EvaluateConfig], progress: Progress, world: World) -> EvaluationResult:
    from clm_core.metrics import compute

    config, backend = request.config, request.backend
    model, prepared = _inputs(request, Progress() if mailbox.take(mailbox.SAID) else progress)
    config = with_dtype(config, model, progress)
    blocks = prepared.blocks(VALIDATION, config.block_size)
    if line := awaited(world):
        progress.say(line)
    started = time.monotonic()
    with progress.bar("evaluating", len(blocks), "block") as bar:

        def report(event: Event) -> None:
            if isinstance(event, BatchScored):
                bar.advance(event.blocks)

        data = prepared.manifest.splits[VALIDATION].content
        both = in_common(model, {}, world)
        job = EvaluationJob(
            model=model, blocks=blocks, config=config, report=report, data=data, world=world, in_common=both
        )
        score = backend.evaluate(job)
    return EvaluationResult(
        backend=backend.name,
        model=str(config.model_name_or_path),
        metrics=compute(score, bytes_per_token=prepared.bytes_per_token(VALIDATION)),
        ledger=prepared.ledger(config.block_size),
        seconds=time.monotonic() - started,
    )
