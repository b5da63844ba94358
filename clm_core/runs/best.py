"""The best checkpoint of a run: which evaluation was the best so far, and how many have come since."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any

from clm_core import checkpoints
from clm_core.config import RunOptions
from clm_core.durable.disk_errors import size_of, writing
from clm_core.durable.files import sync, sync_folder, temporary_folder
from clm_core.errors import ModelError
from clm_core.marker import PREFIX
from clm_core.runs.changes import LENGTH, OF_EVALUATION

WAITS_ANEW = "waits_anew"
"""In the history: a training that has ended early continues, because more steps were asked for."""

HIGHER_IS_BETTER = {"accuracy"}


@dataclass
class Best:
    """What the evaluations so far say; those before the first step are of no checkpoint, and do not count.

    It follows from the lines of the history alone, so that a resumed run comes to the same.
    """

    metric: str = "loss"
    patience: int | None = None
    threshold: float = 0.0
    step: int | None = None
    """That of the best evaluation; None if there has been none."""
    value: float | None = None
    """Its figure."""
    waited: int = 0
    """The evaluations in a row that were not better than the best before them by more than the threshold."""

    @classmethod
    def of(cls, config: RunOptions, history: Iterable[dict[str, Any]] = ()) -> Best | None:
        """What a history says; None if nobody asks for the best checkpoint."""
        if not config.keeps_best:
            return None
        found = cls(
            config.metric_for_best_model,
            config.early_stopping_patience,
            config.early_stopping_threshold,
        )
        for line in history:
            found.add(line)
        return found

    @property
    def is_exhausted(self) -> bool:
        """Whether the training has waited long enough for a better one."""
        return self.patience is not None and self.waited >= self.patience

    def add(self, line: dict[str, Any]) -> None:
        """Take a line of the history into account, as transformers' `EarlyStoppingCallback` and Trainer do."""
        if line.get("changed", {}).keys() & OF_EVALUATION:  # The scores before it are of other text.
            self.forget()
        elif WAITS_ANEW in line:
            self.waited = 0
        elif line["step"] and f"eval_{self.metric}" in line:
            self._compare(line["step"], line[f"eval_{self.metric}"])

    def with_change(self, line: dict[str, Any]) -> dict[str, Any]:
        """The line of a change of options, which says if a training that has ended early is to continue."""
        line = {**line, WAITS_ANEW: True} if self.is_exhausted and line["changed"].keys() & LENGTH else line
        self.add(line)
        return line

    def forget(self) -> None:
        """Begin anew."""
        self.step = self.value = None
        self.waited = 0

    def to_keep(self) -> dict[str, Any] | None:
        """For the results: the step of the best checkpoint, and its figure."""
        return None if self.step is None else {"step": self.step, "metric": self.metric, "value": self.value}

    def _compare(self, step: int, value: float) -> None:
        gain = None if self.value is None else self._gain(value, self.value)
        self.waited = 0 if gain is None or gain > self.threshold else self.waited + 1
        if gain is None or gain > 0:
            self.step, self.value = step, value

    def _gain(self, value: float, before: float) -> float:
        return value - before if self.metric in HIGHER_IS_BETTER else before - value


def take_model(checkpoint: Path, model_dir: Path) -> None:
    """Make the model of a checkpoint the one that is written to a folder.

    Raises:
        ModelError: the checkpoint is damaged, or not there.
    """
    try:
        checkpoints.check_whole(checkpoint)
    except (ModelError, OSError) as error:
        raise ModelError(
            f"{error}: its weights were to be those of the run, as the best; to have those of the last step, repeat "
            "the command with --resume-from-checkpoint auto --no-load-best-model-at-end"
        ) from None
    for path in model_dir.iterdir():
        path.unlink()
    checkpoints.copy_model(checkpoint, model_dir)


def checkpoint_of(step: int, resume_from: Path) -> Path | None:
    """The checkpoint of a step of the run that is resumed from another one; None if it is not there any more."""
    if step == checkpoints.step_of(resume_from):
        return resume_from
    found = checkpoints.run_of(resume_from) / f"{PREFIX}{step}"
    return found if (found / checkpoints.MARKER).is_file() else None


def bring(checkpoint: Path, step: int, folder: Path) -> None:
    """Copy a checkpoint into the folder of a run that is resumed from elsewhere, so that it stays there.

    Raises:
        DiskError: the disk does not take it.
    """
    final = folder / f"{PREFIX}{step}"
    if final.exists():
        return
    with writing(final, needs=lambda: size_of(checkpoint)), temporary_folder(folder, checkpoints.TEMPORARY) as place:
        copytree(checkpoint, place / final.name, symlinks=True)
        sync(place)
        (place / final.name).rename(final)
        sync_folder(folder)
