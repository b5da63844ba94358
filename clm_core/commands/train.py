"""`clm train`: plan a training, have the backend execute it, and write the results."""

from __future__ import annotations

from dataclasses import replace

from clm_core.commands import summary
from clm_core.commands.call import Call
from clm_core.commands.execution import execute, follow
from clm_core.commands.generate import generate
from clm_core.commands.plan import check_output, plan, shape_of_step
from clm_core.config import TrainConfig
from clm_core.counts import with_noun
from clm_core.errors import ClmError, ProcessError
from clm_core.hub import publishing
from clm_core.launch import mailbox, processes, worker
from clm_core.launch.devices import awaited, launcher_of, unused, world_of
from clm_core.options import Given, resolve
from clm_core.options.resolve import AUTO, Request
from clm_core.results import GenerationResult, TrainingResult
from clm_core.runs import output
from clm_core.runs.advice import with_command
from clm_core.runs.changes import too_late
from clm_core.runs.start import Start, find_start, folder_of, has_begun, result_of
from clm_core.sample import PROMPT
from clm_core.screen.endings import of_run
from clm_core.screen.exit_codes import ExitCode
from clm_core.screen.progress import Progress


def run(call: Call) -> ExitCode:
    """Carry out the command line."""
    with call.session() as (backend, progress):
        worker.begin(backend)
        request = replace(resolve.training(call.given, file=call.config, backend=backend), since=call.since)
        call.start(backend, request.config)
        result = train(request, progress, call.for_launcher, verbose=call.verbose)
        completion = None if call.json or not worker.prints() else _complete_sample(request, result)
    return call.end(result, lambda: summary.of_training(request.config, result, completion))


def train(
    request: Request[TrainConfig], progress: Progress, for_launcher: tuple[str, ...] = (), *, verbose: bool = False
) -> TrainingResult:
    """Train a model, evaluate it, and write it with all that belongs to it to the output folder.

    On several devices, processes may be started for it, by a launcher that gets `for_launcher`.
    """
    folder = folder_of(request)
    request = replace(request, config=replace(request.config, output_dir=None if folder is None else str(folder)))
    if launcher := launcher_of(request.backend, request.config, for_launcher):
        return _launched(request, launcher, for_launcher, progress, verbose=verbose)
    world = world_of(request.backend, request.config)
    worker.join(world)
    if world.attempt and folder and has_begun(folder, since=mailbox.launched()):
        again = replace(request.config, resume_from_checkpoint=AUTO, overwrite_output_dir=False)
        request = replace(request, config=again)
    if not world.leads:
        start = find_start(request, folder, Progress().say)
        planned = None if start.is_done else plan(request, start, Progress(), world)
        if planned and not planned.is_done and (line := awaited(world)):
            progress.say(line)
        return follow(planned) if planned and not planned.is_done else _finished(start)
    is_said = mailbox.take(mailbox.SAID) and not world.attempt  # Not where this one was started again.
    if is_said or world.attempt:  # What asks for a stop may have come before this process.
        request = replace(request, since=None)
    with output.held(folder) as is_held:
        said = Progress() if is_said else progress
        start = check_output(request, said)  # Before a repository is made on the Hub.
        publisher = publishing.publisher(request.config, progress)
        planned = None if start.is_done else plan(request, start, said, world)
        if planned is None or planned.is_done:
            return _already_finished(start, publisher, said)
        lines = (shape_of_step(planned.schedule), unused(request.backend, request.config), awaited(world))
        for line in filter(None, lines):
            progress.say(line)
        return execute(planned, publisher, progress, is_held=is_held)


def _launched(
    request: Request[TrainConfig],
    launcher: list[str],
    for_launcher: tuple[str, ...],
    progress: Progress,
    *,
    verbose: bool,
) -> TrainingResult:
    """Plan the training once, and have it carried out by the processes that a launcher starts."""
    config, backend = request.config, request.backend
    with output.reserved(config, backend.name) as folder, processes.place() as place:
        config = replace(config, output_dir=str(folder))
        request = replace(request, config=config)
        if processes.on_several_machines(for_launcher):  # Where the processes there may have begun.
            progress.say(processes.WAITING)
        else:
            with output.held(folder):
                start = check_output(request, progress)
                output.forget_stop(folder, request.since)
                planned = (
                    None if start.is_done else plan(request, start, progress, backend.world(config.nproc_per_node))
                )
            if planned is None or planned.is_done:
                return _already_finished(start, publishing.publisher(config, progress), progress)
            mailbox.put(mailbox.PREPARED, str(planned.prepared.folder.absolute()), place)
            mailbox.put(mailbox.SAID, "plan", place)
        try:
            processes.run(place, launcher, "train", request, progress, verbose=verbose)
        except ProcessError as error:
            raise with_command(error, folder, backend.name) from error
    return result_of(folder)


def _already_finished(start: Start, publisher: publishing.Publisher, progress: Progress) -> TrainingResult:
    """The result of a run that there is nothing to add to, uploaded if that is still to be done."""
    result = _finished(start)
    early, steps = result.stopped_by == "early_stopping", with_noun(result.steps, "step")
    how = f": it was stopped early, after {steps}" if early else f" its {steps}"
    more = "a larger --early-stopping-patience, or " if early else ""
    progress.say(
        f"{result.output_dir} has already finished{how}; {more}more --max-steps, --num-train-epochs or "
        "--max-trained-tokens train it longer"
    )
    for line in too_late(start.changed):
        progress.say(line)
    if result.hub and result.hub.state == "uploaded":
        return result
    if result.hub and result.hub.state == "failed":  # In another command, which this one does not repeat.
        result = replace(result, hub=replace(result.hub, state="queued", error=None))
    with of_run(result.output_dir):
        return publisher.finish(publisher.waiting(result))


def _finished(start: Start) -> TrainingResult:
    assert start.finished is not None
    return start.finished


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
