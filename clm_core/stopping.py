"""What ends a training before its last step: its step is finished, a checkpoint is written, an evaluation abandoned.

The way of a signal: screen/signals.py asks the `Stop` of the job, and from then on `TrainingJob.saves_at` is true. So
after its step the backend calls `checkpoints.save`, which reports `Saved`; there the `Recorder` of the run
(runs/history.py) raises `StoppedError`, which ends the training of any backend. runs/advice.py words it: what there is
of the run, and the command that resumes it. With `--no-save-on-signal`, the recorder raises it when the step is
reported. An evaluation is left by `EvaluationAbandonedError`, and the checkpoint follows.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Ending = Literal["early_stopping", "time"]
"""What ends a training by itself: it waited long enough for a better evaluation, or its time is up."""

STOP_FILE = "stop"
"""The file in a run's folder that asks for it: `touch RUN/stop`."""

BY_TIME, BY_FILE = 1, 2
"""What a process tells the others if its time is up, or if the file asks for it; of a signal, its number plus the last.

The highest counts: a person before the clock.
"""


class EvaluationAbandonedError(Exception):
    """Ends an evaluation between two batches, because the training is to stop; `TrainingJob.evaluate` catches it."""


@dataclass
class Stop:
    """Whether a training is to end after its step, and who asked for it."""

    file: Path | None = None
    """Asks for it as soon as it exists."""
    saves: bool = True
    """Whether a checkpoint is written then, where a person asked for it."""
    signum: int | None = None
    """The signal that asked for it."""
    together: bool = False
    """Whether several processes train: they stop once all of them know, at the same step."""
    agreed: int = 0
    """The highest wish of all processes."""
    deadline: float | None = None
    """When the time of the training is up, of `time.monotonic`."""
    waited: bool = False
    """Whether the training waited long enough for a better evaluation, about which all processes decide alike."""

    def ask(self, signum: int) -> None:
        """End the training after its step, because of this signal."""
        self.signum = signum

    @property
    def wish(self) -> int:
        """What this process has been asked: 0 for nothing; looks at the file each time."""
        if self.signum is not None:
            return BY_FILE + self.signum
        if self.file is not None and os.path.lexists(self.file):
            return BY_FILE
        return BY_TIME if self.deadline is not None and time.monotonic() >= self.deadline else 0

    def give_time(self, deadline: float | None) -> None:
        """End the training after a step from this time on; without one, not because of the time any more."""
        self.deadline = deadline
        if deadline is None and self.agreed == BY_TIME:
            self.agreed = 0

    def agree(self, wish: int) -> None:
        """Take over the highest wish of all processes, which each of them is told."""
        self.agreed = wish
        if wish > BY_FILE:
            self.signum = wish - BY_FILE

    @property
    def requested(self) -> bool:
        """Whether somebody asked for it, or it ends by itself."""
        return self.waited or bool(self._decided)

    @property
    def ending(self) -> Ending | None:
        """What ends the training by itself; None if nothing does, or a person has asked for its end as well."""
        if self._decided >= BY_FILE:
            return None
        return "early_stopping" if self.waited else "time" if self._decided else None

    @property
    def keeps_state(self) -> bool:
        """Whether a checkpoint is to be written: as the person wants it who asked, and always if it ends by itself."""
        return self.requested and (self.saves or self.ending is not None)

    @property
    def _decided(self) -> int:
        return self.agreed if self.together else self.wish
