"""Trainings of tiny models in several processes: cases that torchrun's workers carry out, and what came of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from clm_core.backend import ALONE, Event, Saved, StepDone, TrainingJob, World
from clm_core.errors import ClmError, StoppedError
from clm_core.schedule import Schedule
from clm_core.stopping import Stop
from clm_core.testing.tiny import VOCABULARY, tiny_model, training_job
from clm_pt.backend import PyTorchBackend, PyTorchOptions

SUPPORT = Path(__file__).parents[1]

SIZES = {
    "num_train_epochs": 2,
    "max_steps": -1,
    "train_batch_size": 8,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
}
"""Two epochs of 26 blocks: eight steps, of which each fourth has two blocks."""

SCORED = 11
"""Blocks to evaluate on."""

WHEN = {"eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 6}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training: what differs from `SIZES` and `WHEN`, and what happens to it."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)
    """The backend's own options."""
    blocks: int = 26
    length: int = 16
    """Tokens of a block."""
    dropout: float = 0.0
    architecture: Mapping[str, Any] | None = None
    """A configuration of transformers, by its fields and its `model_type`; otherwise a tiny GPT-2."""
    resume_from: str | None = None
    """A checkpoint."""
    different: int | None = None
    """The rank of a process that has another seed."""
    fails: tuple[int, int] | None = None
    """The rank of a process, and the step in which it is killed, unless it was started again."""
    stops: tuple[int, int] | None = None
    """The rank of a process, and the step after which it is asked to stop."""


def job_of(case: Case, folder: Path, world: World = ALONE) -> TrainingJob:
    """The job of a case in a folder, as the core makes it: what does not lead writes elsewhere."""
    options = {**SIZES, **WHEN, "save_total_limit": None, **case.options}
    own = folder if world.leads else folder / f"of-{world.rank}"
    if case.different == world.rank:
        options["seed"] = 1
    job = training_job(
        PyTorchBackend(),
        own,
        model=_model(case, options.get("seed", 42)),
        blocks=(_blocks(case.blocks, case.length, seed=1), _blocks(SCORED, case.length, seed=2)),
        resume_from=case.resume_from and Path(case.resume_from),
        **options,
    )
    schedule = Schedule.from_config(job.config, blocks=len(job.train), devices=world.size)
    stop = Stop(together=not world.is_one_process)
    given = PyTorchOptions(**case.own)
    return replace(job, output_dir=folder, schedule=schedule, world=world, stop=stop, options=given)


def train(case: Case, folder: Path, world: World = ALONE) -> list[Any]:
    """Carry a case out, and return what was reported; at the end, the error that there was."""
    job, told = job_of(case, folder, world), []

    def report(event: Event) -> None:
        told.append([type(event).__name__, _plain(event)])
        place = (world.rank, getattr(event, "step", None))
        if place == case.fails and isinstance(event, StepDone) and world.attempt == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if place == case.stops and isinstance(event, StepDone):
            job.stop.ask(signal.SIGTERM)
        if isinstance(event, Saved) and job.stop.requested:
            raise StoppedError("as asked")

    try:
        PyTorchBackend().train(replace(job, report=report))
    except ClmError as error:
        told.append([type(error).__name__, str(error)])
    return told


def train_together(processes: int, folder: Path, cases: Sequence[Case], *for_torchrun: str, code: int = 0) -> Told:
    """Have torchrun's workers carry out cases, one after the other, and return what each of them has told."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath("cases.json").write_text(json.dumps([asdict(case) for case in cases]), encoding="utf-8")
    start = [sys.executable, "-m", "clm_pt.launch", "--nproc-per-node", str(processes), "--standalone", *for_torchrun]
    search = os.pathsep.join([str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])])
    found = subprocess.run(
        [*start, "-m", "support.torch_workers", str(folder)],
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert found.returncode == code, found.stderr
    return told(folder)


Told = dict[str, list[list[Any]]]
"""By the name of the case: what each process told."""


def told(folder: Path) -> Told:
    """What workers have told of their cases."""
    found: Told = {}
    for file in sorted(folder.glob("told-*.json")):
        for name, events in json.loads(file.read_text(encoding="utf-8")).items():
            found.setdefault(name, []).append(events)
    return found


def figures(events: Sequence[Any], kind: str, name: str) -> list[Any]:
    """A figure of all events of a kind."""
    return [content[name] for each, content in events if each == kind]


def main(folder: Path) -> None:
    """What a worker does."""
    world, found = PyTorchBackend().world(None), {}
    for fields in json.loads(folder.joinpath("cases.json").read_text(encoding="utf-8")):
        case = Case(**fields)
        case = replace(case, fails=case.fails and tuple(case.fails), stops=case.stops and tuple(case.stops))
        found[case.name] = train(case, folder / case.name, world)
        folder.joinpath(f"told-{world.rank}.json").write_text(json.dumps(found), encoding="utf-8")


def _model(case: Case, seed: int) -> Any:
    from transformers import AutoConfig

    model = tiny_model(None, seed=seed, dropout=case.dropout)
    if case.architecture is None:
        return model
    return replace(model, architecture=AutoConfig.for_model(**case.architecture))


def _blocks(count: int, length: int, *, seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, VOCABULARY, (count, length)).astype(np.uint16)


def _plain(event: Event) -> dict[str, Any]:
    found = asdict(event)
    return {**found, "path": Path(found["path"]).name} if "path" in found else found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
