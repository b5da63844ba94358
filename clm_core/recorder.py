"""Follows a training by its events: keeps the history, on disk and for the result, and shows it to the person."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from clm_core.backend import BatchScored, Evaluated, Event, Logged, Saved, Score, StepDone
from clm_core.progress import Bar, Progress
from clm_core.results import Metrics
from clm_core.schedule import Schedule

HISTORY_FILE = "history.jsonl"


class Recorder:
    """The `report` of a training job."""

    def __init__(
        self,
        schedule: Schedule,
        folder: Path,
        progress: Progress,
        *,
        block_size: int,
        validation_blocks: int,
        bytes_per_token: float,
        start_step: int = 0,
    ) -> None:
        self.schedule, self.progress = schedule, progress
        self.predicted = block_size - 1
        self.validation_blocks, self.bytes_per_token = validation_blocks, bytes_per_token
        self.step = self.start_step = start_step
        self.history = _history_until(folder / HISTORY_FILE, start_step)
        self.checkpoint: Path | None = None
        self.started = time.monotonic()
        self._file = folder / HISTORY_FILE
        self.validating = 0.0
        """Seconds spent on validation, which do not count for the speed of the training."""
        self._evaluation: tuple[ExitStack, Bar] | None = None
        self._evaluation_started = 0.0
        self._handlers = {
            StepDone: self._step_done,
            Logged: self._logged,
            BatchScored: self._batch_scored,
            Evaluated: self._evaluated,
            Saved: self._saved,
        }

    @contextmanager
    def recording(self) -> Iterator["Recorder"]:
        """Show a bar, and add to the history file, for as long as the training takes."""
        self._file.write_text("".join(json.dumps(line) + "\n" for line in self.history), encoding="utf-8")
        with self.progress.bar("training", self.schedule.total_steps, "step") as self._bar:
            self._bar.advance(self.start_step)
            self.started = time.monotonic()
            yield self

    def __call__(self, event: Event) -> None:
        """Take in an event."""
        self._handlers[type(event)](event)  # type: ignore[operator]

    @property
    def before(self) -> Metrics | None:
        """The metrics of the validation before the first step."""
        return self._metrics_at(0)

    @property
    def after(self) -> Metrics | None:
        """The metrics of the validation after the last step."""
        return self._metrics_at(self.schedule.total_steps)

    @property
    def tokens_trained(self) -> int:
        """Predicted tokens of the steps so far."""
        return self._tokens_until(self.step)

    def _step_done(self, event: StepDone) -> None:
        self.step = event.step
        self._bar.advance()

    def _logged(self, event: Logged) -> None:
        seconds = time.monotonic() - self.started - self.validating
        tokens = self._tokens_until(event.step)
        rate = (tokens - self._tokens_until(self.start_step)) / seconds
        line = {
            "step": event.step,
            "epoch": round(event.step / self.schedule.steps_per_epoch, 4),
            "loss": event.loss,
            "learning_rate": event.learning_rate,
            "grad_norm": event.grad_norm,
            "tokens": tokens,
            "tokens_per_second": round(rate, 1),
        }
        self._record(line)
        self._bar.note(f"loss {event.loss:.3f}, perplexity {_exp(event.loss):,.1f}, {rate:,.0f} tokens/s")

    def _batch_scored(self, event: BatchScored) -> None:
        if self._evaluation is None:
            stack, self._evaluation_started = ExitStack(), time.monotonic()
            self._evaluation = (
                stack,
                stack.enter_context(self.progress.bar("validating", self.validation_blocks, "block")),
            )
        self._evaluation[1].advance(event.blocks)

    def _evaluated(self, event: Evaluated) -> None:
        if self._evaluation:
            self._evaluation[0].close()
            self.validating += time.monotonic() - self._evaluation_started
            self._evaluation = None
        metrics = self._metrics(event.score)
        self._record({"step": event.step, **{f"eval_{name}": value for name, value in metrics.items()}})
        when = "before training" if event.step == 0 else f"step {event.step} of {self.schedule.total_steps}"
        self.progress.say(f"{when}: validation loss {metrics['loss']:.4f}, perplexity {metrics['perplexity']:,.2f}")

    def _saved(self, event: Saved) -> None:
        self.checkpoint = event.path

    def _metrics(self, score: Score) -> Metrics:
        from clm_core.metrics import compute

        return compute(score, bytes_per_token=self.bytes_per_token)

    def _record(self, line: dict[str, Any]) -> None:
        self.history.append(line)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _metrics_at(self, step: int) -> Metrics | None:
        for line in self.history:
            if line["step"] == step and "eval_loss" in line:
                return {name.removeprefix("eval_"): value for name, value in line.items() if name != "step"}
        return None

    def _tokens_until(self, step: int) -> int:
        schedule = self.schedule
        epochs, rest = divmod(step, schedule.steps_per_epoch)
        per_step = schedule.batch_size * schedule.accumulation
        return (epochs * schedule.blocks + rest * per_step) * self.predicted


def _history_until(file: Path, step: int) -> list[dict[str, Any]]:
    """What an interrupted run had recorded up to the checkpoint it is resumed from."""
    if not step or not file.is_file():
        return []
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return [line for line in lines if line["step"] <= step]


def _exp(loss: float) -> float:
    return math.exp(min(loss, 700.0))
