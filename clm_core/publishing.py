"""Runs on the Hub: what of a run goes there, while it is trained, at its end, and at any time later.

The order is always the same: the run is on disk and read back, and then it is uploaded. An upload that fails leaves
it as it is, for `clm push` to go on with.
"""

import contextlib
import json
import os
import shlex
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from clm_core import hub, output
from clm_core.backend import Event, Report, Saved
from clm_core.background import Background
from clm_core.config import PushConfig, TrainConfig
from clm_core.errors import ClmError, HubError, OptionError
from clm_core.hub import Hub, Repository
from clm_core.model_card import read_options, read_results, recipe, remove_card, write_card
from clm_core.progress import Progress
from clm_core.recorder import HISTORY_FILE
from clm_core.requests import RUN_FILE
from clm_core.results import Publication, TrainingResult
from clm_core.upload import Files, upload, without_bars

LAST = "last-checkpoint"
"""The folder of the last checkpoint in a repository, for strategy `checkpoint`; Trainer calls it so, too."""

SECRET = "training_args.bin"
"""What other programs leave in a checkpoint, with a token in it; it is never uploaded."""

OF_THIS_MACHINE = ("output_dir", "checkpoint", "hub")
"""What is said in the results of places here, and of the upload itself."""


def push(run: Path, config: PushConfig, progress: Progress) -> Publication:
    """Make a repository equal to a finished run, from wherever an earlier upload stopped.

    An upload that fails raises nothing: its state says so.

    Raises:
        OutputError: the folder holds no finished run.
    """
    results, options = read_results(run), read_options(run)
    earlier = results.get("hub") or {}
    repository = Repository(
        id=config.hub_model_id or earlier.get("repository") or options.get("hub_model_id") or _name(run),
        kind=hub.MODEL,
        revision=config.hub_revision or earlier.get("revision") or options.get("hub_revision", "main"),
        private=options.get("hub_private_repo") if config.hub_private_repo is None else config.hub_private_repo,
    )
    done = _Push(run, repository, progress).carry_out(None, options)
    _record(run, done)
    return done


def publisher(config: TrainConfig, progress: Progress) -> "Publisher":
    """What publishes a training as its options say; who you are, and whether you may, is found out at once.

    Raises:
        OptionError: the options contradict each other.
        HubError: nobody is logged in, may not write there, or the Hub cannot be reached.
    """
    _check(config)
    if not config.push_to_hub:
        return Publisher()
    if config.hub_offline:
        return _Queue(config)
    return _Live(config, progress)


class Publisher:
    """Publishes nothing, and is the interface of those that do."""

    @contextmanager
    def following(self, folder: Path, report: Report) -> Iterator[Report]:
        """While the run in this folder is trained: the report that its job is to call."""
        remove_card(folder)
        yield report

    def finish(self, result: TrainingResult) -> TrainingResult:
        """When the run is on disk and read back: publish it, and say in the result what became of that."""
        return result


class _Queue(Publisher):
    """Leaves the upload to `clm push`."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def finish(self, result: TrainingResult) -> TrainingResult:
        run = result.output_dir
        name = self.config.hub_model_id or _name(run)
        queued = Publication(repository=name, revision=self.config.hub_revision, state="queued", command=_command(run))
        _record(run, queued)
        return replace(result, hub=queued)


class _Live(Publisher):
    """Uploads checkpoints in the background, if they are wanted, and the run at its end."""

    def __init__(self, config: TrainConfig, progress: Progress) -> None:
        self.config, self.progress = config, progress
        try:
            self.hub = Hub.connect(progress.say)
            self.repository: Repository | None = self._make(Path(config.output_dir)) if config.output_dir else None
        except HubError as error:
            raise HubError(
                f"push_to_hub: {error}; --hub-offline trains now, and leaves the upload to clm push"
            ) from None

    @contextmanager
    def following(self, folder: Path, report: Report) -> Iterator[Report]:
        remove_card(folder)
        self.repository = self.repository or self._make(folder)
        if self.config.hub_strategy == "end":
            yield report
            return
        background: Background[_State] = Background(self._upload_state, _State.remove)

        def follow(event: Event) -> None:
            report(event)
            if isinstance(event, Saved):
                background.submit(_State.of(event, folder))

        with without_bars():
            try:
                yield follow
            finally:
                background.stop()

    def finish(self, result: TrainingResult) -> TrainingResult:
        assert self.repository
        run = result.output_dir
        waiting = Publication(
            repository=self.repository.id, revision=self.repository.revision, state="queued", command=_command(run)
        )
        _record(run, waiting)  # Should this process be killed.
        done = _Push(run, self.repository, self.progress).carry_out(self.hub, read_options(run))
        _record(run, done)
        return replace(result, hub=done)

    def _make(self, folder: Path) -> Repository:
        config = self.config
        repository = Repository(
            id=self.hub.full_name(config.hub_model_id or _name(folder)),
            kind=hub.MODEL,
            revision=config.hub_revision,
            private=config.hub_private_repo,
        )
        address = self.hub.make(repository)
        self.progress.say(f"to be published at {address} (user {self.hub.user})")
        return repository

    def _upload_state(self, state: "_State", stopped: threading.Event) -> None:
        assert self.repository
        files = state.files(with_state=self.config.hub_strategy == "checkpoint")
        message = f"Training in progress, step {state.step}"
        try:
            upload(self.hub, self.repository, files, owned=_nothing, message=message, stopped=stopped)
        except HubError as error:
            if not stopped.is_set():
                self.progress.say(f"the checkpoint of step {state.step} was not uploaded: {error}")
        else:
            self.progress.say(f"uploaded the checkpoint of step {state.step}")


@dataclass(frozen=True)
class _State:
    """A checkpoint as it was when it was saved: links to its files, which outlive the checkpoint itself."""

    step: int
    folder: Path

    @classmethod
    def of(cls, event: Saved, run: Path) -> "_State":
        folder = Path(tempfile.mkdtemp(prefix=output.UPLOADING, dir=run))
        for path in event.path.iterdir():
            if path.is_file():
                _link(path, folder / path.name)
        return cls(event.step, folder)

    def files(self, *, with_state: bool) -> Files:
        run = self.folder.parent
        files: dict[str, Path | bytes] = {path.name: path for path in output.published(self.folder)}
        files |= {RUN_FILE: _run_file(run), HISTORY_FILE: (run / HISTORY_FILE).read_bytes()}
        return {**files, **(_checkpoint_files(self.folder) if with_state else {})}

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class _Push:
    """An upload of a run that is on disk."""

    run: Path
    repository: Repository
    progress: Progress

    def carry_out(self, connected: Hub | None, options: dict[str, Any]) -> Publication:
        repository = self.repository
        outcome = Publication(repository=repository.id, revision=repository.revision, state="failed")
        try:
            user = connected or Hub.connect(self.progress.say)
            repository = replace(repository, id=user.full_name(repository.id))
            if not (self.run / output.CARD).exists():
                data_set = options.get("dataset_name")
                known = hub.dataset_license(data_set, options.get("revision")) if data_set else None
                write_card(self.run, repository.id, license=known)
            self.progress.say(f"uploading {self.run} to {repository.id}")
            message = f"Upload the model that clm trained, {read_results(self.run)['steps']} steps"
            done = upload(user, repository, _files(self.run, options), owned=_is_ours, message=message)
        except (ClmError, OSError) as error:
            return replace(outcome, repository=repository.id, error=str(error), command=_command(self.run))
        except KeyboardInterrupt:
            self.progress.say(f"not uploaded; the run is on disk: {_command(self.run)}")
            raise
        return replace(outcome, repository=repository.id, state="uploaded", url=done.url, commit=done.commit)


def _check(config: TrainConfig) -> None:
    if not config.push_to_hub:
        for name in ("hub_offline", "hub_strategy"):
            if getattr(config, name) not in (False, "end"):
                raise OptionError(f"{name} {getattr(config, name)} was given without push_to_hub, which it belongs to")
    elif config.hub_strategy != "end":
        if config.save_strategy == "no":
            raise OptionError(f"hub_strategy {config.hub_strategy} uploads what is saved, and save_strategy is no")
        if config.hub_offline:
            raise OptionError(
                f"hub_strategy {config.hub_strategy} uploads during the training, and hub_offline not at all"
            )


def _files(run: Path, options: dict[str, Any]) -> Files:
    """What a repository has of a finished run."""
    files: dict[str, Path | bytes] = {path.name: path for path in output.published(run)}
    files |= {RUN_FILE: _run_file(run), output.RESULTS_FILE: _results_file(run)}
    checkpoint = read_results(run)["checkpoint"]
    if options.get("hub_strategy") == "checkpoint" and checkpoint and (run / Path(checkpoint).name).is_dir():
        files |= _checkpoint_files(run / Path(checkpoint).name)
    return files


def _checkpoint_files(checkpoint: Path) -> Files:
    return {f"{LAST}/{path.name}": path for path in checkpoint.iterdir() if path.is_file() and path.name != SECRET}


def _run_file(run: Path) -> bytes:
    """The options of a run, without the places on this machine and without where it was published."""
    import yaml

    text: str = yaml.safe_dump(recipe(read_options(run)), sort_keys=False, allow_unicode=True)
    return text.encode()


def _results_file(run: Path) -> bytes:
    shared = {name: value for name, value in read_results(run).items() if name not in OF_THIS_MACHINE}
    return (json.dumps(shared, indent=2) + "\n").encode()


def _is_ours(path: str) -> bool:
    """Whether a file of a repository is of a run, so that one which this run has not is of an earlier one."""
    return path.startswith(f"{LAST}/") or ("/" not in path and output.is_published(path))


def _nothing(path: str) -> bool:
    return False


def _record(run: Path, publication: Publication) -> None:
    results = read_results(run) | {"hub": asdict(publication)}
    output.write(run / output.RESULTS_FILE, json.dumps(results, indent=2, allow_nan=False) + "\n")


def _name(run: Path) -> str:
    return run.absolute().name


def _command(run: Path) -> str:
    return f"clm push {shlex.quote(str(run))}"


def _link(source: Path, target: Path) -> None:
    with contextlib.suppress(OSError):  # Not every file system has links.
        os.link(source, target)
        return
    shutil.copyfile(source, target)
