"""A request to end a training: its step is finished, a checkpoint is written, and an evaluation is abandoned."""

import os
from dataclasses import dataclass
from pathlib import Path

STOP_FILE = "stop"
"""The file in a run's folder that asks for it: `touch RUN/stop`."""


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

    def ask(self, signum: int) -> None:
        """End the training after its step, because of this signal."""
        self.signum = signum

    @property
    def requested(self) -> bool:
        """Whether somebody asked for it; looks at the file each time."""
        return self.signum is not None or (self.file is not None and os.path.lexists(self.file))
