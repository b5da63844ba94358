"""Runs of a tiny model, and their traces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clm_core import checkpoints
from clm_core.backend import (
    Backend,
    BatchScored,
    Blocks,
    Evaluated,
    EvaluationJob,
    Event,
    GenerationJob,
    Logits,
    Model,
    Report,
    Saved,
    Score,
    StepDone,
    TrainingJob,
)
from clm_core.config import EvaluateConfig, EvaluationOptions, SamplingOptions
from clm_core.testing.tiny import tiny_model, training_job, validation_blocks

PROMPT = (3, 1, 4)


@dataclass
class Trace:
    """What a training did, as far as its job can tell."""

    job: TrainingJob
    events: list[Event] = field(default_factory=list)

    def of(self, kind: type) -> list[Any]:
        """The events of a kind."""
        return [event for event in self.events if type(event) is kind]

    def facts(self) -> list[Any]:
        """What two runs have in common if and only if they are the same."""
        kept = [path.name for path in checkpoints.list_complete(self.job.output_dir)]
        saved = [event.step for event in self.of(Saved)]
        return [self.of(StepDone), self.of(Evaluated), self.of(BatchScored), saved, kept]


def reported(events: Iterable[Event]) -> list[tuple[str, int]]:
    """Events in short: their kind, with their step, or with the blocks of a batch."""
    return [(type(event).__name__, event.blocks if isinstance(event, BatchScored) else event.step) for event in events]


def expected(job: TrainingJob) -> list[tuple[str, int]]:
    """The events that a job is to report, in short, by its schedule."""
    return [event for step in range(job.first_step, job.schedule.total_steps + 1) for event in _expected_at(job, step)]


def run(backend: Backend, folder: Path, *, report: Report = lambda event: None, **job: Any) -> Trace:
    """Train a tiny model for a few steps and return what happened; `job` is what `training_job` takes."""
    return train(backend, training_job(backend, folder, **job), report=report)


def train(backend: Backend, job: TrainingJob, *, report: Report = lambda event: None) -> Trace:
    """Carry out a job and return what happened."""
    events: list[Event] = []

    def follow(event: Event) -> None:
        events.append(event)
        report(event)

    trace = Trace(replace(job, report=follow), events)
    backend.train(trace.job)
    return trace


def losses(trace: Trace) -> list[float]:
    """The loss of each step of a run."""
    return [event.loss for event in trace.of(StepDone)]


def evaluate(
    backend: Backend,
    trace: Trace | None = None,
    blocks: Blocks | None = None,
    model: Model | None = None,
    config: EvaluationOptions | None = None,
) -> Score:
    """Score blocks with `model`, or with the one that a run has written."""
    events: list[Event] = []
    job = _evaluation_job(model or _written_by(trace), blocks, config)
    score = backend.evaluate(replace(job, report=events.append))
    scored = sum(event.blocks for event in events if isinstance(event, BatchScored))
    assert scored == len(job.blocks), f"BatchScored reported {scored} blocks, but the score is of {len(job.blocks)}"
    return score


def logits(backend: Backend, model: Model, blocks: Blocks | None = None) -> Logits:
    """What a model predicts after each token of some blocks."""
    return backend.logits(_evaluation_job(model, blocks, None))


def generate(
    backend: Backend,
    trace: Trace | None = None,
    *,
    model: Model | None = None,
    prompt: tuple[int, ...] = PROMPT,
    eos_token_ids: tuple[int, ...] = (),
    **options: Any,
) -> list[int]:
    """Continue a prompt with `model`, or with the one that a run has written."""
    config = SamplingOptions(**{"max_new_tokens": 12, **options})
    chosen = model or _written_by(trace)
    return list(
        backend.generate(GenerationJob(model=chosen, prompt=prompt, eos_token_ids=eos_token_ids, config=config))
    )


def _expected_at(job: TrainingJob, step: int) -> Iterator[tuple[str, int]]:
    if step > job.first_step:
        yield "StepDone", step
    if job.validation is not None and job.evaluates_at(step):
        size = job.config.per_device_eval_batch_size
        for first in range(0, len(job.validation), size):
            yield "BatchScored", min(size, len(job.validation) - first)
        yield "Evaluated", step
    if job.schedule.saves_at(step) and step > job.first_step:
        yield "Saved", step


def _written_by(trace: Trace | None) -> Model:
    assert trace, "neither a model nor the run that wrote one was given"
    return tiny_model(str(trace.job.model_dir))


def _evaluation_job(model: Model, blocks: Blocks | None, config: EvaluationOptions | None) -> EvaluationJob:
    return EvaluationJob(
        model=model,
        blocks=validation_blocks() if blocks is None else blocks,
        config=config or EvaluateConfig(),
        report=lambda event: None,
    )
