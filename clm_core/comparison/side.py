"""One side of a comparison, in its own process: `clm parity` runs `python -m clm_core.comparison.side BACKEND FOLDER`.

It trains on what the folder contains, and writes what is compared there: `BACKEND/record.json` and, for the start and
the compared steps, weights and logits. Progress goes to standard output. The exit codes are those of `clm`. An error is
one line on standard error; an unexpected one is its traceback, which `clm parity` keeps. It ends when standard input
ends, so that it does not outlive `clm parity`.
"""

import json
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from clm_core import durable, options
from clm_core.adapters import new_adapter
from clm_core.backend import Backend, Blocks, Evaluated, EvaluationJob, Event, Model, Saved, StepDone, TrainingJob
from clm_core.config import ParityConfig, TrainConfig
from clm_core.data.manifest import TRAIN, VALIDATION
from clm_core.data.prepared import Prepared
from clm_core.durable.files import unforeseen
from clm_core.errors import TrainingError
from clm_core.marker import MARKER
from clm_core.models.architectures import count_embeddings
from clm_core.models.configurations import load_config
from clm_core.options import resolve
from clm_core.registry import get_backend
from clm_core.results import versions
from clm_core.schedule import Schedule
from clm_core.screen import quiet, signals
from clm_core.screen.endings import line_of
from clm_core.screen.exit_codes import ExitCode, code_of
from clm_core.screen.progress import PlainProgress, Progress
from clm_core.screen.standard_streams import complain, escaped_output, open_closed

REQUEST, ARCHITECTURE, START = "parity.yaml", "architecture", "start"
"""In the folder: the options, the configuration without dropout, and the weights that both sides start from."""
RECORD = "record.json"
PROBED = 2
"""Blocks that logits are compared on, the first of the training data."""


def main(argv: Sequence[str]) -> int:
    """Run the side of a backend and return the exit code of the process."""
    name, folder = argv
    open_closed()
    try:
        with signals.handled(), escaped_output(), _lines() as out, quiet.hushed(verbose=False):
            signals.end_with_parent()
            backend = get_backend(name)
            backend.start(verbose=False)
            run(backend, Path(folder), PlainProgress(out))
    except KeyboardInterrupt as error:
        complain(line_of(error))
        return code_of(error)
    except Exception as error:
        code = code_of(error)
        complain("".join(traceback.format_exception(error)) if code == ExitCode.CRASHED else line_of(error))
        return code
    return ExitCode.DONE


def run(backend: Backend, folder: Path, progress: Progress) -> None:
    """Write the first weights, if there are none yet, train from them, and write what is compared."""
    request = resolve.parity_side(backend, file=folder / REQUEST)
    recorder = _Recorder(progress)
    job = _job(request, folder, recorder)
    if not (folder / START).is_dir():
        _begin(backend, job, request.config, folder)
    with progress.bar("training", job.schedule.total_steps, "step") as recorder.bar:
        backend.train(job)
    probe = job.train[:PROBED]
    for step, checkpoint in {0: None, **recorder.saved}.items():
        np.save(job.output_dir / f"logits-{step}.npy", _logits(backend, replace(job, resume_from=checkpoint), probe))
    record = {"steps": recorder.steps, "evaluations": recorder.evaluations, "versions": versions(backend.requires)}
    durable.replace(job.output_dir / RECORD, json.dumps(record))


def train_config(config: ParityConfig) -> TrainConfig:
    """The options of the training that is compared."""
    known = {option.name for option in options.list_options(TrainConfig)}
    shared = {name: value for name, value in vars(config).items() if name in known}
    saving = {"save_strategy": "steps", "save_steps": config.compare_steps, "save_total_limit": None}
    # A file may have the tokens of its training; how many steps are compared is the command's.
    length = {"max_trained_tokens": None} if config.max_steps > 0 else {}
    return TrainConfig(**{**shared, **saving, **length, "eval_strategy": "epoch"})


def _lines() -> TextIO:
    """Standard output for the progress, which is the only thing that goes there."""
    return os.fdopen(os.dup(1), "w", buffering=1, encoding=sys.stdout.encoding, errors=sys.stdout.errors)


class _Recorder:
    """The `report` of the training."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.bar: Any = None
        self.steps: list[dict[str, Any]] = []
        self.evaluations: list[dict[str, Any]] = []
        self.saved: dict[int, Path] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            if not np.isfinite(event.loss):
                raise TrainingError(f"the loss is {event.loss} at step {event.step}: a lower --learning-rate may help")
            self.steps.append(vars(event))
            self.bar.advance()
        elif isinstance(event, Evaluated):
            self.evaluations.append({"step": event.step, "loss": event.score.loss})
        elif isinstance(event, Saved):
            self.saved[event.step] = event.path
            _keep_model(event.path)


def _keep_model(checkpoint: Path) -> None:
    """Remove the state of the optimizer, which is twice as large as the weights and not compared."""
    for path in checkpoint.iterdir():
        if not path.name.startswith(("model", "adapter", "config", "generation_config", MARKER)):
            path.unlink()


def _job(request: resolve.Request[ParityConfig], folder: Path, report: _Recorder) -> TrainingJob:
    config = train_config(request.config)
    prepared = Prepared.open(Path(str(config.prepared)))
    own = folder / request.backend.name
    (own / "model").mkdir(parents=True)
    blocks = prepared.blocks(TRAIN, config.block_size)
    validation = prepared.blocks(VALIDATION, config.block_size) if prepared.has(VALIDATION) else None
    return TrainingJob(
        model=_with_adapter(_model(folder, str(folder / START), config), config),
        train=blocks,
        validation=validation,
        schedule=Schedule.from_config(
            config,
            len(blocks),
            prepared.manifest.splits[TRAIN].content,
            validation=validation is not None,
            of_blocks=prepared.predicted(TRAIN, config.block_size),
        ),
        config=config,
        options=request.backend_options,
        output_dir=own,
        model_dir=own / "model",
        resume_from=None,
        report=report,
        backend=request.backend.name,
    )


def _begin(backend: Backend, job: TrainingJob, config: ParityConfig, folder: Path) -> None:
    """Write what both sides start from: the weights of a checkpoint, or new ones."""
    unfinished = unforeseen(folder, f".{START}-")
    unfinished.mkdir()
    model = replace(_model(folder, config.model_name_or_path, config), revision=config.model_revision)
    if config.resize_embeddings:
        model = replace(model, vocabulary=count_embeddings(model.architecture))
    schedule = replace(job.schedule, total_steps=0, eval_every=None, save_every=None)
    backend.train(replace(job, model=model, model_dir=unfinished, schedule=schedule))
    os.replace(unfinished, folder / START)  # noqa: PTH105  (one word for what happens)


def _model(folder: Path, name_or_path: str | None, config: Any) -> Model:
    architecture = load_config("configuration", str(folder / ARCHITECTURE), "main")
    return Model(
        name_or_path=name_or_path,
        revision="main",
        architecture=architecture,
        seed=config.seed,
        ignore_unused_weights=config.ignore_unused_weights,
    )


def _with_adapter(model: Model, config: TrainConfig) -> Model:
    """The model with the adapter that is trained, if one is."""
    return replace(model, adapter=new_adapter(config, model.name_or_path, model.revision, model.architecture))


def _logits(backend: Backend, job: TrainingJob, blocks: Blocks) -> Any:
    return backend.logits(EvaluationJob(model=job.source, blocks=blocks, config=job.config, report=lambda event: None))


if __name__ == "__main__":
    with signals.taken():
        code = main(sys.argv[1:])
        signals.leave(code)
    raise SystemExit(code)
