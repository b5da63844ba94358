"""Follows a training by its events: keeps the history and shows progress."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from clm_core.backend import BatchScored, Evaluated, Event, Saved, Score, StepDone
from clm_core.counts import with_noun
from clm_core.durable import append, replace
from clm_core.durable.disk_errors import writing
from clm_core.errors import DivergedError, StoppedError
from clm_core.record import HISTORY_FILE
from clm_core.results import Metrics
from clm_core.runs.best import Best
from clm_core.runs.changes import Changes
from clm_core.runs.kept_history import PENDING_FILE, history_of, pending_of
from clm_core.runs.memory import peak_memory
from clm_core.runs.restoring import restore
from clm_core.runs.speed import Speed
from clm_core.runs.spikes import Spikes
from clm_core.runs.utilization import Utilization
from clm_core.schedule import Schedule
from clm_core.screen.progress import Bar, Progress
from clm_core.stopping import Ending, EvaluationAbandonedError, Stop


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
        of_blocks: Any = None,
        utilization: Callable[[], Utilization | None] = lambda: None,
        curves: Any = None,
        resume_from: Path | None = None,
        start_step: int = 0,
        changed: Changes | None = None,
        stop: Stop | None = None,
        begin: Callable[[], None] = lambda: None,
        spikes: Spikes | None = None,
        best: Best | None = None,
        seconds: float | None = None,
    ) -> None:
        """`changed` goes into the history of a resumed run; `begin` is called once a step is done.

        The training has `seconds`, but makes a step in any case. `of_blocks` has how many tokens count in each block,
        if not all do; `utilization` is asked for once a step is done.
        """
        self.schedule, self.progress, self.curves = schedule, progress, curves
        self.speed = Speed(schedule, block_size - 1, of_blocks, start_step, utilization)
        self.validation_blocks, self.bytes_per_token = validation_blocks, bytes_per_token
        self.step = self.start_step = start_step
        self.stop, self.begin = stop or Stop(), begin
        self.history = history_of(resume_from, start_step, progress) if resume_from else []
        self.best = best
        if best:
            for line in self.history:
                best.add(line)
        if changed:
            line = {"step": start_step, "changed": {name: list(pair) for name, pair in changed.items()}}
            self.history.append(best.with_change(line) if best else line)
        kept = pending_of(resume_from)
        self.pending: list[float] = kept["loss"]
        self.pending_auxiliary: list[float] = kept["auxiliary_loss"]
        is_last = resume_from is not None and start_step == schedule.total_steps  # Before, it may have been another.
        self.evaluation_due: bool = kept["evaluation_due"] or (is_last and self._is_evaluation_due())
        """Whether the evaluation at the first step is still to be made: it was abandoned, or was not due then."""
        self.spikes = spikes or Spikes()
        self.spikes.restore(kept["spikes"])
        self.checkpoint: Path | None = resume_from
        self.started = time.monotonic()
        self.seconds = 0.0
        """Seconds from the first step to the last, including evaluations and checkpoints."""
        self.evaluating = 0.0
        """Seconds spent on evaluations, which do not count for the training speed."""
        self.peak_memory_bytes: int | None = None
        """The most memory that was in use until the last step."""
        self.chosen: dict[str, str] = {}
        """What the backend decided by itself."""
        self.stopped_by: Ending | None = None
        """What ended the training before its last step by itself."""
        self._given_seconds = seconds
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

    @contextmanager
    def until_it_ends(self) -> Iterator[None]:
        """The block trains; where the training ends by itself before its last step, that is no error."""
        try:
            yield
        except StoppedError:
            if self.stopped_by is None:
                raise
            why = "its time is up" if self.stopped_by == "time" else "the evaluations do not get better"
            self.progress.say(f"step {self.step:,} of {self.schedule.total_steps:,}: the training ends, as {why}")

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
        pending = {
            "loss": self.pending,
            "auxiliary_loss": self.pending_auxiliary,
            "evaluation_due": self._is_evaluation_due(),
            "spikes": self.spikes.to_keep(),
        }
        (folder / PENDING_FILE).write_text(json.dumps(pending), encoding="utf-8")
        (folder / HISTORY_FILE).write_text(self._text(), encoding="utf-8")

    def restore(self) -> None:
        """Have the file of the history as it was recorded, where something else has changed or removed it."""
        restore(self._file, self._text(), self.progress.say)

    @property
    def before(self) -> Metrics | None:
        """The metrics of the evaluation before the first step."""
        return self.metrics_at(0)

    @property
    def tokens_trained(self) -> int:
        """Predicted tokens of the steps so far."""
        return self.speed.tokens.until(self.step)

    def _is_evaluation_due(self) -> bool:
        is_due = self.validation_blocks > 0 and self.schedule.evaluates_at(self.step)
        return is_due and not self.metrics_at(self.step)

    def _step_done(self, event: StepDone) -> None:
        self._check_finite("loss", event.loss, event.step, reason=event.step - 1)
        self._check_finite("gradient norm", event.grad_norm or 0.0, event.step, reason=event.step - 1)
        if self._stops_after is not None:  # The step after which the backend should have saved.
            raise self._stopped()
        self.step = event.step
        self.begin()
        self._give_time(event.step)
        self.peak_memory_bytes = event.peak_memory_bytes or peak_memory()
        self.pending.append(event.loss)
        if event.auxiliary_loss is not None:
            self._check_finite("auxiliary loss", event.auxiliary_loss, event.step, reason=event.step - 1)
            self.pending_auxiliary.append(event.auxiliary_loss)
        if self.spikes.add(event.loss):
            raise self._spike(event)
        self._bar.advance()
        if self.schedule.logs_at(event.step):
            self._log(event)
        elif event.step == self.start_step + 1:
            # A framework traces or compiles in its first step, and never again.
            self.speed.measure_from(event.step, self._training_seconds())
        if self.stop.requested and not event.is_late:
            self._stops_after = event.step
            if not self.stop.keeps_state:
                raise self._stopped()

    def _give_time(self, step: int) -> None:
        """The time counts from the first step on, so that each resumption makes one, and not after the last."""
        given = self._given_seconds if step < self.schedule.total_steps else None
        self.stop.give_time(None if given is None else self.started + given)

    def _log(self, event: StepDone) -> None:
        loss = _taken_mean(self.pending)
        auxiliary = {"auxiliary_loss": _taken_mean(self.pending_auxiliary)} if self.pending_auxiliary else {}
        speed = self.speed.until(event.step, self._training_seconds())
        self._record(
            {
                "step": event.step,
                "epoch": round(event.step / self.schedule.steps_per_epoch, 4),
                "loss": loss,
                **auxiliary,
                "learning_rate": self.schedule.learning_rate_at(event.step - 1),
                "grad_norm": event.grad_norm,
                **speed,
                **({"peak_memory_bytes": self.peak_memory_bytes} if self.peak_memory_bytes else {}),
            }
        )
        added = "".join(f"auxiliary loss {value:.3f}, " for value in auxiliary.values())
        self._bar.note(f"loss {loss:.3f}, {added}{speed['tokens_per_second']:,.0f} tokens/s")

    def _training_seconds(self) -> float:
        return time.monotonic() - self.started - self.evaluating

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
        self._check_finite("validation loss", event.score.loss, event.step, reason=event.step)
        metrics = self._metrics(event.score)
        line = {"step": event.step, **{f"eval_{name}": value for name, value in metrics.items()}}
        if self.best:
            self.best.add(line)
            line |= {} if self.best.step is None else {"best_step": self.best.step}
        self._record(line)
        when = "before training" if event.step == 0 else f"step {event.step:,} of {self.schedule.total_steps:,}"
        self.progress.say(f"{when}: validation loss {metrics['loss']:.4f}, perplexity {metrics['perplexity']:,.2f}")
        if self.is_over:
            self.stop.waited, self._stops_after = True, event.step
            if event.step == self.start_step:  # The checkpoint of this step is there.
                raise self._stopped()

    @property
    def is_evaluating(self) -> bool:
        """Whether an evaluation has begun that has not ended."""
        return self._evaluation is not None

    @property
    def is_over(self) -> bool:
        """Whether the training has waited long enough for a better evaluation, before its last step."""
        return self.best is not None and self.best.is_exhausted and self.step < self.schedule.total_steps

    def _check_finite(self, name: str, value: float, step: int, *, reason: int) -> None:
        """Make sure of a number; it follows from the weights that the step `reason` made, and is the same from them."""
        if math.isfinite(value):
            return
        if step == 0:
            raise DivergedError(f"the {name} is {value} before the first step: this model cannot be trained", step=0)
        raise DivergedError(
            f"the {name} is {value} at step {step}, where the learning rate was {self._rate_of(step):g}: a lower "
            "--learning-rate, a longer warmup or a smaller --max-grad-norm may keep it finite",
            step=reason,
        )

    def _spike(self, event: StepDone) -> DivergedError:
        spikes, step = self.spikes, event.step
        return DivergedError(
            f"stop_on_loss_spike {spikes.factor:g}: the loss is {event.loss:.4g} at step {step}, and was more than "
            f"that many times {spikes.median:.4g}, the median of those before, for "
            f"{with_noun(spikes.in_a_row, 'step')} in a row, where the learning rate was {self._rate_of(step):g}: a "
            "lower --learning-rate, a longer warmup or a smaller --max-grad-norm may keep it down",
            step=step - spikes.in_a_row,
        )

    def _rate_of(self, step: int) -> float:
        """The learning rate of a step."""
        return self.schedule.learning_rate_at(step - 1)

    def _metrics(self, score: Score) -> Metrics:
        from clm_core.metrics import compute

        return compute(score, bytes_per_token=self.bytes_per_token)

    def _stopped(self) -> StoppedError:
        """What ends a training that was asked to stop; the command says what there is of it, and how to resume it."""
        self.stopped_by = self.stop.ending
        return StoppedError(signum=self.stop.signum)

    def _text(self) -> str:
        return "".join(json.dumps(line) + "\n" for line in self.history)

    def _record(self, line: dict[str, Any]) -> None:
        self.history.append(line)
        with writing(self._file, needs=lambda: len(json.dumps(line)) + 1):
            append(self._file, json.dumps(line))
        if self.curves:
            self.curves.write(line)

    def metrics_at(self, step: int) -> Metrics | None:
        """The metrics of the evaluation after this many steps."""
        for line in self.history:
            if line["step"] == step and "eval_loss" in line:
                return {name.removeprefix("eval_"): line[name] for name in line if name.startswith("eval_")}
        return None


def _taken_mean(values: list[float]) -> float:
    """The mean of values, which are taken out of their list."""
    mean = math.fsum(values) / len(values)
    values.clear()
    return mean
