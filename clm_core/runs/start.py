"""Where a training starts: anew, from a checkpoint, or not at all, because it has been finished."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from clm_core import checkpoints, record
from clm_core.config import TrainConfig
from clm_core.counts import with_noun
from clm_core.errors import ModelError, OptionError, OutputError
from clm_core.options.recorded import of_run
from clm_core.options.resolve import AUTO, Request
from clm_core.paths import in_command
from clm_core.results import Publication, TrainingResult
from clm_core.runs import output, run_file
from clm_core.runs.best import Best
from clm_core.runs.changes import LENGTH, Changes, changes

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where a training starts."""

    resume_from: Path | None = None
    """A checkpoint that is whole."""
    changed: Changes = field(default_factory=dict)
    """The options that are others than in the run so far."""
    finished: TrainingResult | None = None
    """The result of the run, if it has been finished and is as it was written."""
    waits_longer: bool = False
    """Whether it was stopped early, and would not have been with the options of now."""

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to do: the run is finished, and is not to be longer."""
        return self.finished is not None and not self.waits_longer and not self.changed.keys() & LENGTH


def folder_of(request: Request[TrainConfig]) -> Path | None:
    """The folder of the run; None if the first free one is to be chosen."""
    config = request.config
    if config.output_dir is None and config.resume_from_checkpoint == AUTO:
        return output.default_folder(config, request.backend.name)
    return None if config.output_dir is None else Path(config.output_dir)


def has_begun(folder: Path, since: float | None) -> bool:
    """Whether the run in this folder was begun or resumed after `since`, and replaces no other any more.

    If `since` is None, whether there is a run.
    """
    if since is None:
        return output.has_run(folder)
    with suppress(FileNotFoundError, NotADirectoryError):
        return not record.earlier_run(folder) and (folder / record.RUN_FILE).lstat().st_mtime >= since - output.TICK
    return False


def find_start(request: Request[TrainConfig], folder: Path | None, say: Say) -> Start:
    """Where to start, as `resume_from_checkpoint` says; `say` hears what is damaged and what is done instead.

    Raises:
        ModelError: there is no such checkpoint, or it is damaged.
        OptionError: an option that defines the data or the model is another than the run's, or the run is to be
            overwritten.
    """
    named = request.config.resume_from_checkpoint
    if named is None:
        return Start()
    run = folder if named == AUTO else Path(named)
    if request.config.overwrite_output_dir and (run is None or folder is None or run_file.lies_in(folder, run)):
        raise OptionError(
            "overwrite_output_dir would delete the run that resume_from_checkpoint resumes: give one of them"
        )
    if run is None or (named == AUTO and not output.has_run(run)):
        return Start()
    if (run / checkpoints.MARKER).is_file() or (named != AUTO and record.is_checkpoint(run)):
        return _from(request, checkpoints.find(run), say)
    finished = _finished(run, say) if folder and run.resolve() == folder.resolve() else None
    start = Start(
        finished=finished,
        changed=_changes(request, run) if finished else {},
        waits_longer=finished is not None and _waits_longer(request.config, finished),
    )
    if start.is_done:
        return start
    if checkpoint := _newest(run, say, is_finished=finished is not None):
        found = _from(request, checkpoint, say)
        # A run that was made shorter without a step has another length than its checkpoint.
        longer = {name: pair for name, pair in start.changed.items() if name in LENGTH}
        return replace(found, finished=finished, waits_longer=start.waits_longer, changed={**longer, **found.changed})
    return _without_checkpoint(run, say, finished)


def begun_from(run: Path) -> Path | None:
    """The checkpoint of another run that a run began from, if its options, which may be damaged, say one."""
    with suppress(OptionError):
        named = of_run(run).get("resume_from_checkpoint")
        return Path(str(named.value)) if named else None
    return None


def result_of(run: Path) -> TrainingResult:
    """The result of a finished run.

    Raises:
        OutputError: there is none, or it is damaged.
    """
    return _result(run, record.read_results(run))


def _from(request: Request[TrainConfig], checkpoint: Path, say: Say) -> Start:
    if not checkpoints.has_sums(checkpoint):
        say(f"{checkpoint} is of an earlier clm: it is not known whether it is damaged, and dropout is drawn anew")
    run = checkpoints.run_of(checkpoint)
    options = next((place for place in (checkpoint, run) if (place / record.RUN_FILE).is_file()), None)
    changed = _changes(request, options) if options else {}
    return Start(resume_from=checkpoint, changed=changed)


def _newest(run: Path, say: Say, *, is_finished: bool) -> Path | None:
    """The checkpoint that a run is resumed from: its newest one, or at first that of another run that it began from."""
    begun = None if is_finished else begun_from(run)
    found = checkpoints.newest_whole(run, say, is_needed=begun is None)
    if begun is None or (found and checkpoints.step_in(found) > checkpoints.step_in(begun)):
        return found
    say(f"{run} has no checkpoint of its own to resume from: starting again from {begun}")
    try:
        return checkpoints.find(begun)
    except ModelError as error:
        raise ModelError(
            f"{error}; {run} began from it: put it back, or start anew, without --resume-from-checkpoint, with "
            f"--output-dir {in_command(run)} --overwrite-output-dir"
        ) from None


def _without_checkpoint(run: Path, say: Say, finished: TrainingResult | None) -> Start:
    if finished:
        raise ModelError(
            f"{run} has finished its {with_noun(finished.steps, 'step')}, and has no checkpoint to train longer from: "
            "start a new training from its weights, in another folder, with --model-name-or-path "
            f"{in_command(run)}"
        )
    if not (run / record.RUN_FILE).is_file():
        checkpoints.find(run)  # Says what there is instead.
    say(f"{run} has no complete checkpoint: starting from the beginning")
    return Start()


def _changes(request: Request[TrainConfig], folder: Path) -> Changes:
    sections = {request.backend.name: request.backend_options}
    return changes(record.read_options(folder), run_file.with_absolute_paths(request.config), sections)


def _waits_longer(config: TrainConfig, finished: TrainingResult) -> bool:
    best = Best.of(config, finished.history)
    return finished.stopped_by == "early_stopping" and not (best and best.is_exhausted)


def _finished(run: Path, say: Say) -> TrainingResult | None:
    """The result of a run that is finished and whole; of one whose files are damaged, `say` hears which."""
    if not (run / record.RESULTS_FILE).is_file():
        return None
    try:
        if record.read_results(run).get("stopped_by") == "time":
            return None
        if damaged := record.faults(run):
            raise OutputError(f"{run} was finished, but {', '.join(damaged)}")
        return _result(run, record.read_results(run))
    except OutputError as error:
        say(f"{error}: finishing it again")
    except (KeyError, TypeError) as error:
        say(f"{run / record.RESULTS_FILE} is not complete ({error}): finishing the run again")
    return None


def _result(run: Path, results: record.Record) -> TrainingResult:
    found = {each.name: results[each.name] for each in fields(TrainingResult) if each.name in results}
    places = {"output_dir": run, "checkpoint": found["checkpoint"] and run / Path(found["checkpoint"]).name}
    hub = Publication(**found["hub"]) if found.get("hub") else None
    return TrainingResult(**{**found, **places, "history": tuple(found["history"]), "hub": hub})
