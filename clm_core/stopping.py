"""A request to end a training: its step is finished, a checkpoint is written, and an evaluation is abandoned."""

import os
from dataclasses import dataclass
from pathlib import Path

STOP_FILE = "stop"
"""The file in a run's folder that asks for it: `touch RUN/stop`."""

BY_FILE = 1
"""What a process tells the others if the file asks for it; the number of a signal is told plus this."""


class EvaluationAbandonedError(Exception):
    """Ends an evaluation between two batches, because the training is to stop; `TrainingJob.evaluate` catches it."""


@dataclass
class Stop:
    """Whether a training is to end after its step, and who asked for it."""

    file: Path | None = None
    """Asks for it as soon as it exists."""
    saves: bool = True
    """Whether a checkpoint is written then."""
    signum: int | None = None
    """The signal that asked for it."""
    together: bool = False
    """Whether several processes train: they stop once all of them know, at the same step."""
    agreed: int = 0
    """The highest wish of all processes."""

    def ask(self, signum: int) -> None:
        """End the training after its step, because of this signal."""
        self.signum = signum

    @property
    def wish(self) -> int:
        """What this process has been asked: 0 for nothing; looks at the file each time."""
        if self.signum is not None:
            return BY_FILE + self.signum
        return BY_FILE if self.file is not None and os.path.lexists(self.file) else 0

    def agree(self, wish: int) -> None:
        """Take over the highest wish of all processes, which each of them is told."""
        self.agreed = wish
        if wish > BY_FILE:
            self.signum = wish - BY_FILE

    @property
    def requested(self) -> bool:
        """Whether somebody asked for it."""
        return bool(self.agreed if self.together else self.wish)
