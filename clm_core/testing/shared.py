"""Trainings, scores and texts of one backend, each made once for all tests that need it."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from clm_core.backend import Backend, BatchScored, Evaluated, Event, Saved, Score, StepDone, TrainingJob
from clm_core.errors import StoppedError, TrainingError
from clm_core.stopping import EvaluationAbandonedError, Stop
from clm_core.testing import recorded
from clm_core.testing.probes import scheduled
from clm_core.testing.tiny import tiny_model, training_job
from clm_core.testing.trace import Trace, evaluate, generate, train

FROM_THE_CORE = "from-the-core"
"""A file that the core adds to a checkpoint: where it was then."""

INTERRUPTED_AT = 5

MODEL_SEED = 7
"""Of the new models; the seed of the schedule is another one."""

Made = TypeVar("Made")


@dataclass
class Shared:
    """What the tests of a backend share. No test may change what it gets from here."""

    backend: Backend
    new_folder: Callable[[], Path]
    _made: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def baseline(self) -> Trace:
        """A run with the options of `scheduled` and dropout, which others are compared with."""
        return self.run()

    @property
    def interrupted(self) -> Trace:
        """The baseline made again, with a report that raises at step `INTERRUPTED_AT`."""
        return self._once("interrupted", self._interrupted)

    @property
    def untrained(self) -> Trace:
        """A run like the baseline, but of no steps."""
        return self._once("untrained", self._untrained)

    @property
    def in_parts(self) -> list[Trace]:
        """The baseline in four parts: asked to stop in an evaluation, in a step, in the last evaluation, and the rest.

        The rest has no step to make.
        """
        return self._once("in parts", self._in_parts)

    def run(self, **options: Any) -> Trace:
        """A run with these options besides those of the baseline."""
        return self._once(_key("run", options), lambda: self.run_again(**options))

    def run_again(self, **options: Any) -> Trace:
        """The same, but not shared; with `resume_from` too."""
        return train(self.backend, self._job(**options))

    def recorded(self, name: str) -> Trace:
        """A run of which the numbers are recorded."""
        return self._once(
            _key("recorded", {"name": name}), lambda: recorded.run_again(self.backend, name, self.new_folder())
        )

    @property
    def score(self) -> Score:
        """Of the model that the baseline has written, on the validation blocks."""
        return self._once("score", lambda: evaluate(self.backend, self.baseline))

    def text(self, **options: Any) -> list[int]:
        """What the baseline's model says with these options."""
        return self._once(_key("text", options), lambda: generate(self.backend, self.baseline, **options))

    def _job(self, **options: Any) -> TrainingJob:
        settings = {**scheduled(self.backend), **options}
        model, folder = tiny_model(None, seed=MODEL_SEED), self.new_folder() / "run"
        job = training_job(self.backend, folder, model=model, **settings)
        return replace(job, options=watch(self.backend.options), add_to_checkpoint=_add)

    def _interrupted(self) -> Trace:
        events: list[Event] = []

        def refuse(event: Event) -> None:
            events.append(event)
            if isinstance(event, StepDone) and event.step == INTERRUPTED_AT:
                raise TrainingError("enough")

        job = replace(self._job(), report=refuse)
        with pytest.raises(TrainingError, match="enough"):
            self.backend.train(job)
        return Trace(job, events)

    def _in_parts(self) -> list[Trace]:
        in_evaluation = [event.step for event in self.baseline.of(Evaluated)[1:]]
        first = self._until_stopped(in_evaluation[0], in_evaluation=True)
        second = self._until_stopped(in_evaluation[0] + 1, resume_from=first.of(Saved)[-1].path, evaluation_due=True)
        third = self._until_stopped(in_evaluation[-1], in_evaluation=True, resume_from=second.of(Saved)[-1].path)
        job = replace(self._job(resume_from=third.of(Saved)[-1].path), evaluation_due=True)
        return [first, second, third, train(self.backend, job)]

    def _until_stopped(
        self, at: int, *, in_evaluation: bool = False, resume_from: Path | None = None, evaluation_due: bool = False
    ) -> Trace:
        """A run that is asked to stop at a step, or in its evaluation, and is treated as clm treats it then."""
        events: list[Event] = []
        stop = Stop()

        def report(event: Event) -> None:
            if isinstance(event, BatchScored) and stop.requested:
                raise EvaluationAbandonedError
            events.append(event)
            is_there = [each.step for each in events if isinstance(each, StepDone)][-1:] == [at]
            if is_there and isinstance(event, BatchScored if in_evaluation else StepDone):
                stop.ask(signal.SIGTERM)
            if isinstance(event, Saved) and stop.requested:
                raise StoppedError("enough")

        job = self._job(resume_from=resume_from)
        job = replace(job, report=report, stop=stop, evaluation_due=evaluation_due)
        with pytest.raises(StoppedError, match="enough"):
            self.backend.train(job)
        return Trace(job, events)

    def _untrained(self) -> Trace:
        job, folder = self.baseline.job, self.new_folder()
        schedule = replace(job.schedule, total_steps=0, eval_every=None)
        return train(self.backend, replace(job, schedule=schedule, output_dir=folder, model_dir=folder))

    def _once(self, key: Any, make: Callable[[], Made]) -> Made:
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made


def watch(options: Any) -> Any:
    """An instance of a backend's `options`, whose class counts in `reads` how often each of its fields is read."""

    class Watched(options):  # type: ignore[misc]  # It is known when it runs.
        reads: ClassVar[Counter[str]] = Counter()

        def __getattribute__(self, name: str) -> Any:
            Watched.reads[name] += 1
            return super().__getattribute__(name)

    return Watched()


def _add(checkpoint: Path) -> None:
    (checkpoint / FROM_THE_CORE).write_text(str(checkpoint), encoding="utf-8")


def _key(kind: str, options: Mapping[str, Any]) -> Any:
    return kind, tuple(sorted(options.items()))
