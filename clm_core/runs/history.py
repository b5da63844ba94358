"""Follows a training by its events: keeps the history and shows progress."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from clm_core.backend import BatchScored, Evaluated, Event, Saved, Score, StepDone
from clm_core.checkpoints import is_current, run_of
from clm_core.durable import append, replace
from clm_core.durable.disk_errors import writing
from clm_core.errors import DivergedError, ModelError, OutputError, StoppedError
from clm_core.record import HISTORY_FILE, RUN_FILE
from clm_core.results import Metrics
from clm_core.runs.changes import Changes
from clm_core.runs.spikes import Spikes
from clm_core.schedule import Schedule
from clm_core.screen.progress import Bar, Progress
from clm_core.stopping import EvaluationAbandonedError, Stop

PENDING_FILE = "pending_losses.json"
"""The file in a checkpoint with the losses since the last line of the history, for the mean in the next one."""


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
        curves: Any = None,
        resume_from: Path | None = None,
        start_step: int = 0,
        changed: Changes | None = None,
        stop: Stop | None = None,
        begin: Callable[[], None] = lambda: None,
        spikes: Spikes | None = None,
    ) -> None:
        """`changed` goes into the history of a resumed run; `begin` is called once a step is done."""
        self.schedule, self.progress, self.curves = schedule, progress, curves
        self.predicted = block_size - 1
        self.validation_blocks, self.bytes_per_token = validation_blocks, bytes_per_token
        self.step = self.start_step = start_step
        self.stop, self.begin = stop or Stop(), begin
        self.history = _history_of(resume_from, start_step, progress) if resume_from else []
        if changed:
            self.history.append({"step": start_step, "changed": {name: list(pair) for name, pair in changed.items()}})
        kept = _pending(resume_from)
        self.pending: list[float] = kept["loss"]
        self.pending_auxiliary: list[float] = kept["auxiliary_loss"]
        self.evaluation_due: bool = kept["evaluation_due"]
        """Whether the evaluation at the first step was abandoned, and is to be made when the run is resumed."""
        self.spikes = spikes or Spikes()
        self.spikes.restore(kept["spikes"])
        self.checkpoint: Path | None = resume_from
        self.started = time.monotonic()
        self._reported, self._reported_at = start_step, 0.0
        """The last step whose rate is known, and the seconds of training when it was done."""
        self.seconds = 0.0
        """Seconds from the first step to the last, including evaluations and checkpoints."""
        self.evaluating = 0.0
        """Seconds spent on evaluations, which do not count for the training speed."""
        self._file = folder / HISTORY_FILE
        self._evaluation: tuple[ExitStack, Bar] | None = None
        self._evaluation_started = 0.0
        self._stops_after: int | None = None
        """The step at which it was seen that the training is to stop."""

    @contextmanager
    def recording(self) -> Iterator["Recorder"]:
        """Show a bar, and add to the history file, for as long as the training takes."""
        with writing(self._file, needs=lambda: len(self._text())):
            replace(self._file, self._text())
        with self.progress.bar("training", self.schedule.total_steps, "step") as self._bar:
            self._bar.advance(self.start_step)
            self.started = time.monotonic()
            yield self
        self.seconds = time.monotonic() - self.started
        if self.curves:
            self.curves.close()

    def __call__(self, event: Event) -> None:
        """Handle an event.

        Raises:
            DivergedError: the loss of a step is no longer a number, or completes a spike.
            DiskError: the history cannot be written.
            StoppedError: the training was asked to stop, and has saved what it is to save.
        """
        match event:
            case StepDone():
                self._step_done(event)
            case BatchScored():
                self._batch_scored(event)
            case Evaluated():
                self._evaluated(event)
            case Saved():
                self.checkpoint = event.path
                if self.stop.requested:
                    raise self._stopped()

    def add_to_checkpoint(self, folder: Path) -> None:
        """Write the history so far, and what its next line needs."""
        due = self.validation_blocks > 0 and self.schedule.evaluates_at(self.step) and not self._metrics_at(self.step)
        pending = {
            "loss": self.pending,
            "auxiliary_loss": self.pending_auxiliary,
            "evaluation_due": due,
            "spikes": self.spikes.to_keep(),
        }
        (folder / PENDING_FILE).write_text(json.dumps(pending), encoding="utf-8")
        (folder / HISTORY_FILE).write_text(self._text(), encoding="utf-8")

    @property
    def before(self) -> Metrics | None:
        """The metrics of the evaluation before the first step."""
        return self._metrics_at(0)

    @property
    def after(self) -> Metrics | None:
        """The metrics of the evaluation after the last step."""
        return self._metrics_at(self.schedule.total_steps)

    @property
    def tokens_trained(self) -> int:
        """Predicted tokens of the steps so far."""
        return self._tokens_until(self.step)

    def _step_done(self, event: StepDone) -> None:
        self._check_finite("loss", event.loss, event.step)
        self._check_finite("gradient norm", event.grad_norm or 0.0, event.step)
        if self._stops_after is not None:  # The step after which the backend should have saved.
            raise self._stopped()
        self.step = event.step
        self.begin()
        self.pending.append(event.loss)
        if event.auxiliary_loss is not None:
            self._check_finite("auxiliary loss", event.auxiliary_loss, event.step)
            self.pending_auxiliary.append(event.auxiliary_loss)
        if self.spikes.add(event.loss):
            raise self._spike(event)
        self._bar.advance()
        if self.schedule.logs_at(event.step):
            self._log(event)
        elif event.step == self.start_step + 1:
            self._measure_from(event.step)  # A framework traces or compiles in its first step, and never again.
        if self.stop.requested:
            self._stops_after = event.step
            if not self.stop.saves:
                raise self._stopped()

    def _log(self, event: StepDone) -> None:
        loss = _taken_mean(self.pending)
        auxiliary = {"auxiliary_loss": _taken_mean(self.pending_auxiliary)} if self.pending_auxiliary else {}
        tokens = self._tokens_until(event.step)
        rate = (tokens - self._tokens_until(self._reported)) / max(self._training_seconds() - self._reported_at, 1e-9)
        self._measure_from(event.step)
        self._record(
            {
                "step": event.step,
                "epoch": round(event.step / self.schedule.steps_per_epoch, 4),
                "loss": loss,
                **auxiliary,
                "learning_rate": self.schedule.learning_rate_at(event.step - 1),
                "grad_norm": event.grad_norm,
                "tokens": tokens,
                "tokens_per_second": round(rate, 1),
            }
        )
        added = "".join(f"auxiliary loss {value:.3f}, " for value in auxiliary.values())
        self._bar.note(f"loss {loss:.3f}, {added}{rate:,.0f} tokens/s")

    def _training_seconds(self) -> float:
        return time.monotonic() - self.started - self.evaluating

    def _measure_from(self, step: int) -> None:
        """The rate of the next report is that of the steps after this one."""
        self._reported, self._reported_at = step, self._training_seconds()

    def _batch_scored(self, event: BatchScored) -> None:
        if self.stop.requested:
            self._end_evaluation()
            # Before the first step, there is nothing to save.
            raise EvaluationAbandonedError if self.step > self.start_step else self._stopped()
        if self._evaluation is None:
            stack, self._evaluation_started = ExitStack(), time.monotonic()
            bar = stack.enter_context(self.progress.bar("evaluating", self.validation_blocks, "block"))
            self._evaluation = stack, bar
        self._evaluation[1].advance(event.blocks)

    def _end_evaluation(self) -> None:
        if self._evaluation:
            self._evaluation[0].close()
            self.evaluating += time.monotonic() - self._evaluation_started
            self._evaluation = None

    def _evaluated(self, event: Evaluated) -> None:
        self._end_evaluation()
        self._check_finite("validation loss", event.score.loss, event.step)
        metrics = self._metrics(event.score)
        self._record({"step": event.step, **{f"eval_{name}": value for name, value in metrics.items()}})
        when = "before training" if event.step == 0 else f"step {event.step} of {self.schedule.total_steps}"
        self.progress.say(f"{when}: validation loss {metrics['loss']:.4f}, perplexity {metrics['perplexity']:,.2f}")

    def _check_finite(self, name: str, value: float, step: int) -> None:
        if math.isfinite(value):
            return
        if step == 0:
            raise DivergedError(f"the {name} is {value} before the first step: this model cannot be trained", step=0)
        raise DivergedError(
            f"the {name} is {value} at step {step}, where the learning rate was {self._rate_of(step):g}: a lower "
            "--learning-rate, a longer warmup or a smaller --max-grad-norm may keep it finite",
            step=step,
        )

    def _spike(self, event: StepDone) -> DivergedError:
        spikes, step = self.spikes, event.step
        return DivergedError(
            f"stop_on_loss_spike {spikes.factor:g}: the loss is {event.loss:.4g} at step {step}, and was more than "
            f"that many times {spikes.median:.4g}, the median of those before, for {spikes.in_a_row} "
            f"step{'s' * (spikes.in_a_row > 1)} in a row, where the learning rate was {self._rate_of(step):g}: a lower "
            "--learning-rate, a longer warmup or a smaller --max-grad-norm may keep it down",
            step=step - spikes.in_a_row + 1,
        )

    def _rate_of(self, step: int) -> float:
        """The learning rate of a step."""
        return self.schedule.learning_rate_at(step - 1)

    def _metrics(self, score: Score) -> Metrics:
        from clm_core.metrics import compute

        return compute(score, bytes_per_token=self.bytes_per_token)

    def _stopped(self) -> StoppedError:
        """What ends a training that was asked to stop; the command says what there is of it, and how to resume it."""
        return StoppedError(signum=self.stop.signum)

    def _text(self) -> str:
        return "".join(json.dumps(line) + "\n" for line in self.history)

    def _record(self, line: dict[str, Any]) -> None:
        self.history.append(line)
        with writing(self._file, needs=lambda: len(json.dumps(line)) + 1):
            append(self._file, json.dumps(line))
        if self.curves:
            self.curves.write(line)

    def _metrics_at(self, step: int) -> Metrics | None:
        for line in self.history:
            if line["step"] == step and "eval_loss" in line:
                return {name.removeprefix("eval_"): value for name, value in line.items() if name != "step"}
        return None

    def _tokens_until(self, step: int) -> int:
        schedule = self.schedule
        epochs, rest = divmod(step, schedule.steps_per_epoch)
        return (epochs * schedule.blocks_per_epoch + rest * schedule.step_blocks) * self.predicted


def _history_of(checkpoint: Path, step: int, progress: Progress) -> list[dict[str, Any]]:
    """The history of an interrupted run up to the checkpoint it is resumed from, which has it.

    Raises:
        OutputError: there is only that of the run, of an earlier clm, and it cannot be read.
    """
    run, kept = run_of(checkpoint), checkpoint / HISTORY_FILE
    if not kept.is_file():
        in_run = run / HISTORY_FILE
        return [line for line in _lines(in_run) if line["step"] <= step] if in_run.is_file() else []
    if (run / RUN_FILE).exists() and not is_current(checkpoint):
        progress.say(f"{run / HISTORY_FILE} is damaged: restored from {checkpoint.name}")
    return [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]


def _lines(file: Path) -> list[dict[str, Any]]:
    lines = file.read_bytes().split(b"\n")
    found = []
    for number, line in enumerate(lines[:-1], start=1):  # What follows the last line's end was cut off.
        try:
            found.append({"step": 0, **json.loads(line)})
        except (ValueError, TypeError, RecursionError) as error:
            raise OutputError(
                f"{file}, line {number} is damaged ({error}): repair or remove the line, or the file"
            ) from None
    return found


def _pending(checkpoint: Path | None) -> dict[str, Any]:
    """What `add_to_checkpoint` wrote, or nothing; an earlier clm wrote less, or a list of losses alone.

    Raises:
        ModelError: it cannot be read.
    """
    file = checkpoint / PENDING_FILE if checkpoint else None
    nothing = {"loss": [], "auxiliary_loss": [], "evaluation_due": False, "spikes": None}
    if file is None or not file.is_file():
        return nothing
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {**nothing, **(found if isinstance(found, dict) else {"loss": list(map(float, found))})}
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelError(f"{file} is damaged ({error}): use another checkpoint") from None


def _taken_mean(values: list[float]) -> float:
    """The mean of values, which are taken out of their list."""
    mean = math.fsum(values) / len(values)
    values.clear()
    return mean
