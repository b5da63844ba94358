"""What to do about what ended a training: names the checkpoint that there is, and the command that resumes the run."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from clm_core.checkpoints import faults, is_current, list_complete, newest_whole, run_of, step_in, step_of
from clm_core.durable.disk_errors import writing
from clm_core.errors import (
    DiskError,
    DivergedError,
    LostProcessError,
    ProcessError,
    StoppedError,
    TrainingError,
)
from clm_core.options.resolve import AUTO
from clm_core.paths import in_command
from clm_core.record import RUN_FILE
from clm_core.runs.history import Recorder
from clm_core.screen.exit_codes import ExitCode
from clm_core.stopping import STOP_FILE, EvaluationAbandonedError

NONE = "there is no checkpoint"


def with_command(error: ProcessError, folder: Path, backend: str) -> ProcessError:
    """The error of the processes that trained in a folder, with the command that resumes, if none of them said it."""
    found = newest_whole(folder, is_needed=False)
    way = f"{found} is complete; to resume: {_command(backend, folder)}" if found else NONE
    is_said = error.advised or error.code < ExitCode.CRASHED
    return ProcessError(str(error) if is_said else f"{error}; {way}", code=error.code, advised=True)


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What can be said of a run whose training ends before its last step."""

    folder: Path
    recorder: Recorder
    backend: str
    slower_rate: Callable[[], float | None]
    """The learning rate to resume with where the loss diverged; None if there is none."""
    begun_from: Path | None = None
    """The checkpoint of another run that this one began from."""

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Say with the error that ends a training what there is of it, and which command resumes it.

        Raises:
            StoppedError: it was asked to stop.
            DiskError: the disk did not take something that was written into the folder of the run.
            TrainingError: it cannot continue as it is.
        """
        try:
            with writing(self.folder, within=self.folder):
                yield
        except (StoppedError, EvaluationAbandonedError) as error:
            raise StoppedError(self._stopped(), signum=self.recorder.stop.signum) from error
        except DiskError as error:
            raise type(error)(f"{error}; {self._from(self._newest())}") from error
        except LostProcessError as error:
            raise LostProcessError(f"{error}; {self._from(self._newest())}", advised=True) from error
        except TrainingError as error:
            wrong = error.step if isinstance(error, DivergedError) else self.recorder.step + 1
            raise TrainingError(f"{error}; {self._slower(self._newest(before=wrong))}") from error

    def _stopped(self) -> str:
        recorder, signum = self.recorder, self.recorder.stop.signum
        by = signal.Signals(signum).name if signum else f"the file {self.folder / STOP_FILE}"
        if not recorder.step:
            return f"stopped by {by} before its first step: nothing is kept"
        where = f"at step {recorder.step:,} of {recorder.schedule.total_steps:,}"
        return f"stopped by {by} {where}: {self._from(recorder.checkpoint)}"

    def _from(self, checkpoint: Path | None) -> str:
        """How to resume the run, or start it again."""
        if checkpoint is None:
            return NONE
        own = self._is_own(checkpoint) or self._has_begun
        way = _command(self.backend, self.folder) if own else self._anew(checkpoint)
        return f"{checkpoint} is complete; to resume: {way}"

    def _slower(self, checkpoint: Path | None) -> str:
        """How to resume the run, or train it from its first step, at a lower learning rate."""
        slower = self.slower_rate()
        rate = f" --learning-rate {slower:g}" if slower else ""
        if checkpoint is None:
            return f"there is no checkpoint from before{self._from_the_start(rate)}"
        way = _command(self.backend, checkpoint) if self._is_own(checkpoint) else self._anew(checkpoint)
        return f"{checkpoint} is from before; to resume: {way}{rate}"

    def _is_own(self, checkpoint: Path) -> bool:
        return checkpoint.parent == self.folder

    @property
    def _has_begun(self) -> bool:
        """Whether the training has made a step, also before, so that its folder stays, and says where it began."""
        checkpoint = self.recorder.checkpoint
        is_resumed = checkpoint is not None and self._is_own(checkpoint)
        return is_resumed or self.recorder.step > self.recorder.start_step

    def _anew(self, checkpoint: Path) -> str:
        """The command that begins again from the checkpoint of another run, in a folder that is free."""
        free = _first_free(self.folder) if self._has_begun else self.folder
        return f"{_command(self.backend, checkpoint)} --output-dir {in_command(free)}"

    def _from_the_start(self, rate: str) -> str:
        """How to train from the first step; the options of one that was resumed are in no file."""
        if not self.recorder.step:
            return ""
        if self.recorder.start_step:
            return "; train it anew, in another --output-dir"
        config, folder = in_command(self.folder / RUN_FILE), in_command(self.folder)  # Which may not be in run.yaml.
        way = f"clm --backend {self.backend} train --config {config} --output-dir {folder} --overwrite-output-dir"
        return f"; to begin again: {way}{rate}"

    def _newest(self, before: int | None = None) -> Path | None:
        """The last whole checkpoint on the way of this training, or the last from before a step."""
        last = self.recorder.checkpoint
        if before is None and last and not faults(last):
            return last
        try:
            found = {path for path in list_complete(self.folder) if is_current(path)}
        except PermissionError:  # The folder cannot be read any more; what was saved in it is there.
            return last if before is None else None
        if other := self.begun_from:
            found |= {other, *(path for path in list_complete(run_of(other)) if step_in(path) < step_in(other))}
        whole = (path for path in sorted(found, key=step_in, reverse=True) if not faults(path))
        return next((path for path in whole if before is None or step_of(path) < before), None)


def _first_free(folder: Path) -> Path:
    names = (f"{folder.name}-again{'' if number == 1 else f'-{number}'}" for number in count(1))
    return next(path for path in map(folder.with_name, names) if not path.exists())


def _command(backend: str, path: Path) -> str:
    named = f"./{AUTO}" if path == Path(AUTO) else in_command(path)  # The word alone names no folder.
    return f"clm --backend {backend} train --resume-from-checkpoint {named}"
