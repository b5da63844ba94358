"""Curves for TensorBoard, written from the history, so that every backend has the same."""

import os
import time
from pathlib import Path
from typing import Any

from clm_core.durable.disk_errors import writing
from clm_core.errors import OutputError


class CurveWriter:
    """Writes scalars under the names that Trainer gives them: `train/loss`, `eval/loss` and so on."""

    def __init__(self, folder: Path) -> None:
        """Begin a file in this folder.

        Raises:
            OutputError: the folder is a link, which may lead out of the run, or a file.
        """
        if folder.is_symlink():
            raise OutputError(f"{folder} is a link, and a run is written into its own folder: remove it")
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file in the place of the folder for curves: remove it")
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        # The rest of the name can be foreseen, and with it a link of that name.
        with writing(folder):
            self._writer = EventFileWriter(str(folder), filename_suffix=f".{os.urandom(8).hex()}")

    def write(self, line: dict[str, Any]) -> None:
        """Add a line of the history to the curves."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        group = "eval" if "eval_loss" in line else "train"
        line = {name: value for name, value in line.items() if name != "best_step"}
        # Plain numbers, as Trainer writes them: `tensorboard.summary.Writer` writes tensors, which scripts do not find.
        values = [
            Summary.Value(tag=f"{group}/{name.removeprefix('eval_')}", simple_value=value)
            for name, value in line.items()
            if name != "step" and value is not None
        ]
        self._writer.add_event(Event(wall_time=time.time(), step=line["step"], summary=Summary(value=values)))
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
