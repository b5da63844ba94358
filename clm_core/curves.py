"""The curves of a training for TensorBoard, written from its history, so that every backend has them alike."""

from pathlib import Path
from typing import Any


class CurveWriter:
    """Writes scalars under the names that Trainer gives them: `train/loss`, `eval/loss` and so on."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary import Writer

        self._writer = Writer(str(folder))

    def write(self, line: dict[str, Any]) -> None:
        """Add a line of the history to the curves."""
        group = "eval" if "eval_loss" in line else "train"
        for name, value in line.items():
            if name != "step" and value is not None:
                self._writer.add_scalar(f"{group}/{name.removeprefix('eval_')}", value, line["step"])
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
