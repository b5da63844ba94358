"""What to do about what ended a training: names the checkpoint that there is, and the command that resumes the run."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clm_core.checkpoints import faults, list_complete, step_of
from clm_core.durable.disk_errors import writing
from clm_core.errors import (
    DiskError,
    DivergedError,
    LostProcessError,
    ProcessError,
    StoppedError,
    TrainingError,
)
from clm_core.paths import in_command
from clm_core.runs.history import Recorder
from clm_core.screen.exit_codes import ExitCode
from clm_core.stopping import STOP_FILE, EvaluationAbandonedError

NONE = "there is no checkpoint"


def with_command(error: ProcessError, folder: Path, backend: str) -> ProcessError:
    """The error of the processes that trained in a folder, with the command that resumes, if none of them said it."""
    found = _newest_of(_complete(folder))
    way = f"{found} is complete; to resume: {_command(backend, folder)}" if found else NONE
    is_said = error.advised or error.code < ExitCode.CRASHED
    return ProcessError(str(error) if is_said else f"{error}; {way}", code=error.code, advised=True)


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What can be said of a run whose training ends before its last step."""

    folder: Path
    recorder: Recorder
    backend: str
    learning_rate: float | None
    """What it trains with; None if the backend has no learning rate."""

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
        is_newest = checkpoint.parent == self.folder
        return (
            f"{checkpoint} is complete; to resume: {_command(self.backend, self.folder if is_newest else checkpoint)}"
        )

    def _slower(self, checkpoint: Path | None) -> str:
        """How to resume the run at half of its learning rate."""
        if checkpoint is None:
            return "there is no checkpoint from before"
        rate = f" --learning-rate {self.learning_rate / 2:g}" if self.learning_rate else ""
        return f"{checkpoint} is from before; to resume: {_command(self.backend, checkpoint)}{rate}"

    def _newest(self, before: int | None = None) -> Path | None:
        """The checkpoint to resume from: the newest whole one, or the newest from before a step."""
        found = _complete(self.folder)
        if (start := self.recorder.checkpoint) and start not in found and start.is_dir():
            found.insert(0, start)
        return _newest_of(found, before)


def _command(backend: str, path: Path) -> str:
    return f"clm --backend {backend} train --resume-from-checkpoint {in_command(path)}"


def _complete(folder: Path) -> list[Path]:
    return list_complete(folder) if folder.is_dir() else []


def _newest_of(checkpoints: list[Path], before: int | None = None) -> Path | None:
    """The last one of these that can be resumed from, and is from before a step."""
    whole = (path for path in reversed(checkpoints) if not faults(path))
    return next((path for path in whole if before is None or step_of(path) < before), None)
