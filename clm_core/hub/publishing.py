"""Uploads during and after a training: checkpoints if requested, then the finished run.

The order is always the same: the run is written and read back, and only then uploaded. A failed upload leaves it as it
is, and `clm push` continues it.
"""

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from clm_core.backend import Event, Report, Saved
from clm_core.config import TrainConfig
from clm_core.durable import discard
from clm_core.errors import ClmError, HubError, OptionError, OutputError
from clm_core.hub import account, run_files
from clm_core.hub.account import Hub, Repository
from clm_core.hub.background import Background
from clm_core.hub.card import remove_card
from clm_core.hub.pushing import name_of, push_run, queued
from clm_core.hub.upload import upload, without_bars
from clm_core.record import UPLOADING, read_results, write_results
from clm_core.results import TrainingResult
from clm_core.screen.progress import Progress
from clm_core.stopping import Stop


def publisher(config: TrainConfig, progress: Progress) -> "Publisher":
    """The publisher of a training, by its options; checks your login and write access at once.

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
    """Publishes nothing; the interface of those that do."""

    @contextmanager
    def following(self, folder: Path, report: Report, stop: Stop) -> Iterator[Report]:
        """During the training of the run in this folder, which `stop` may end: the `report` for its job."""
        remove_card(folder)
        yield report

    def waiting(self, result: TrainingResult) -> TrainingResult:
        """The result as it is written first: with the upload that is to come, should this process be killed."""
        return result

    def finish(self, result: TrainingResult) -> TrainingResult:
        """Once the run is written and read back: publish it, and put the outcome into the result and its file."""
        return result


class _Queue(Publisher):
    """Leaves the upload to `clm push`."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def waiting(self, result: TrainingResult) -> TrainingResult:
        run = result.output_dir
        return replace(result, hub=queued(run, self.config.hub_model_id or name_of(run), self.config.hub_revision))


class _Live(Publisher):
    """Uploads checkpoints in the background, if requested, and the run at its end."""

    def __init__(self, config: TrainConfig, progress: Progress) -> None:
        self.config, self.progress = config, progress
        try:
            self.hub = Hub.connect(progress.say)
            named = config.hub_model_id or config.output_dir  # Otherwise named like the folder, which is chosen later.
            self.repository: Repository | None = self._make(Path(config.output_dir or "run")) if named else None
        except HubError as error:
            raise HubError(
                f"push_to_hub: {error}; to train now and upload later, give --hub-offline, then run clm push"
            ) from None

    @contextmanager
    def following(self, folder: Path, report: Report, stop: Stop) -> Iterator[Report]:
        remove_card(folder)
        self.repository = self.repository or self._make(folder)
        if self.config.hub_strategy == "end":
            yield report
            return
        background: Background[_State] = Background(self._upload_state, _State.remove)

        def follow(event: Event) -> None:
            report(event)
            if isinstance(event, Saved):
                try:
                    background.submit(_State.of(event, folder))
                except OSError as error:  # Such as a full disk, which should not end the training.
                    self.progress.say(f"the checkpoint of step {event.step} is not uploaded: {error}")

        with without_bars(), background.stopped_at_end(lambda: stop.requested):
            yield follow

    def waiting(self, result: TrainingResult) -> TrainingResult:
        assert self.repository
        return replace(result, hub=queued(result.output_dir, self.repository.id, self.repository.revision))

    def finish(self, result: TrainingResult) -> TrainingResult:
        assert self.repository
        done = replace(result, hub=push_run(result.output_dir, self.repository, self.progress, self.hub))
        with contextlib.suppress(OSError, OutputError):  # A disk that is full keeps what was written before.
            written = read_results(result.output_dir)
            write_results(result.output_dir, written | {"hub": done.to_dict()["hub"]})
        return done

    def _make(self, folder: Path) -> Repository:
        config = self.config
        repository = Repository(
            id=self.hub.full_name(config.hub_model_id or name_of(folder)),
            kind=account.MODEL,
            revision=config.hub_revision or "main",
            private=config.hub_private_repo,
        )
        address = self.hub.make(repository)
        self.progress.say(f"will upload to {address} (user {self.hub.user})")
        return repository

    def _upload_state(self, state: "_State", stopped: threading.Event) -> None:
        assert self.repository
        message = f"Training in progress, step {state.step}"
        try:
            files = run_files.of_checkpoint(state.folder, with_state=self.config.hub_strategy == "checkpoint")
            upload(self.hub, self.repository, files, message=message, stopped=stopped)
        except (ClmError, OSError) as error:
            if not stopped.is_set():
                self.progress.say(f"the checkpoint of step {state.step} was not uploaded: {error}")
        else:
            self.progress.say(f"uploaded the checkpoint of step {state.step}")


@dataclass(frozen=True)
class _State:
    """A checkpoint as it was saved: links to its files, which outlive the checkpoint."""

    step: int
    folder: Path

    @classmethod
    def of(cls, event: Saved, run: Path) -> "_State":
        """The checkpoint that was just saved."""
        state = cls(event.step, Path(tempfile.mkdtemp(prefix=UPLOADING, dir=run)))
        try:
            state.link(event.path)
        except OSError:
            state.remove()
            raise
        return state

    def link(self, checkpoint: Path) -> None:
        """Make the links to the files of a checkpoint, or copies where there can be none."""
        for path in checkpoint.iterdir():
            if path.is_symlink():  # Stays a link, and as such is left out of the upload.
                (self.folder / path.name).symlink_to(path.readlink())
            elif path.is_file():
                _link(path, self.folder / path.name)

    def remove(self) -> None:
        """Remove the links."""
        discard(self.folder)


def _check(config: TrainConfig) -> None:
    if config.push_to_hub and config.hub_strategy != "end":
        if config.save_strategy == "no" and not config.keeps_best:
            raise OptionError(
                f"hub_strategy {config.hub_strategy} uploads checkpoints, but save_strategy no writes none"
            )
        if config.hub_offline:
            raise OptionError(
                f"hub_strategy {config.hub_strategy} uploads during training, but hub_offline uploads nothing"
            )


def _link(source: Path, target: Path) -> None:
    with contextlib.suppress(OSError):  # Not every file system has links.
        os.link(source, target)
        return
    shutil.copyfile(source, target)
