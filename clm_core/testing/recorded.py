"""Reference losses and gradient norms from the same weights and blocks, which every backend has to reproduce.

`BackendContract` compares; `python -m clm_core.testing.recorded pt` records them again, with the backend of that name.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from clm_core import checkpoints
from clm_core.backend import Backend, Model, StepDone, TrainingJob
from clm_core.checkpoints import State
from clm_core.optimizer import rule_of
from clm_core.testing.tiny import (
    Weights,
    first_weights,
    masked,
    shapes,
    tiny_gpt2,
    tiny_model,
    training_blocks,
    training_job,
    validation_blocks,
    write_model,
)
from clm_core.testing.trace import Trace, run, train

Array = npt.NDArray[np.float32]

FILE = Path(__file__).with_suffix(".json")

RUNS: dict[str, dict[str, Any]] = {
    "usual": {"max_steps": 8},
    "scheduled": {
        "max_steps": 8,
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 2,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.3,
        "max_grad_norm": 0.3,
    },
    "damped": {
        "max_steps": 8,
        "weight_decay": 0.5,
        "adam_beta1": 0.6,
        "adam_beta2": 0.9,
        "adam_epsilon": 1e-3,
        "max_grad_norm": 0.0,
    },
    # Steps of batches that are not of one size, in an order of another seed, until the middle of an epoch.
    "uneven": {
        "max_steps": -1,
        "num_train_epochs": 1.5,
        "per_device_train_batch_size": 5,
        "train_batch_size": 8,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 1,
        "seed": 7,
    },
    # It has no epsilon to hide what rounding makes of gradients that are 0, such as of biases of keys.
    "adafactor": {"max_steps": 6, "optim": "adafactor", "weight_decay": 0.5, "learning_rate": 1e-3},
    "muon": {"max_steps": 6, "optim": "muon", "weight_decay": 0.5},
    "in parts": {
        "max_steps": 8,
        "freeze": ("layers:0", "ln_f"),
        "embedding_learning_rate": 1e-3,
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.5,
        "max_grad_norm": 0.5,
    },
}
"""Options of the reference trainings, besides those that all runs of the contract have."""

UNCLIPPED = "damped"
"""The one of them in which AdamW's moments tell the gradient; it leaves a checkpoint of each step."""

MASKED = "masked"
"""The recorded training in which some tokens do not count: in each block, and so in each batch, another number."""

MASKED_OPTIONS: dict[str, Any] = {**RUNS["uneven"], "per_device_eval_batch_size": 4}

BY_ANOTHER = [name for name, options in RUNS.items() if "optim" in options]
"""Those by another optimizer than AdamW; they leave a checkpoint of step `SAVED_AT`."""

SAVED_AT = 3

RESUMED_AT = 3

_RESUMED: dict[str, Any] = {"max_steps": 8, "dataloader_drop_last": True, "lr_scheduler_type": "constant"}

RESUMED_RUNS: dict[str, dict[str, Any]] = {
    "resumed": _RESUMED,
    "adafactor resumed": {**_RESUMED, "optim": "adafactor", "learning_rate": 1e-3},
    "muon resumed": {**_RESUMED, "optim": "muon"},
}
"""The options of recorded trainings that begin with a checkpoint of another backend, after `RESUMED_AT` steps."""


def write_checkpoint(folder: Path, *, seed: int = 42) -> Model:
    """Write a tiny GPT-2 without dropout, with the core's first weights, and return it: no framework is needed."""
    architecture = tiny_gpt2(initializer_range=0.2)  # With the usual 0.02, all logits would be close to 0.
    return write_model(folder, architecture, first_weights(architecture, seed=seed))


def run_again(backend: Backend, name: str, folder: Path) -> Trace:
    """Make a recorded run: one of `RUNS` or `MASKED`, from the weights of `write_checkpoint`, or of `RESUMED_RUNS`."""
    if name in RESUMED_RUNS:
        return _resume(backend, folder, RESUMED_RUNS[name])
    if name == MASKED:
        blocks = masked(training_blocks()), masked(validation_blocks())
        return run(backend, folder / "run", model=write_checkpoint(folder / "start"), blocks=blocks, **MASKED_OPTIONS)
    every = {UNCLIPPED: 1, **dict.fromkeys(BY_ANOTHER, SAVED_AT)}.get(name)
    saving = {"save_strategy": "steps", "save_steps": every, "save_total_limit": None} if every else {}
    return run(backend, folder / "run", model=write_checkpoint(folder / "start"), **{**RUNS[name], **saving})


def recorded() -> dict[str, dict[str, Any]]:
    """For each run: `losses` and `grad_norms` of its steps, and `evaluations`, the losses on the validation blocks."""
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def first_evaluation() -> float:
    """The loss of the model of `write_checkpoint` on the validation blocks."""
    loss: float = recorded()["usual"]["evaluations"][0]
    return loss


def figures(events: list[Any]) -> dict[str, Any]:
    """What is recorded of a training."""
    steps = [event for event in events if isinstance(event, StepDone)]
    return {
        "losses": [step.loss for step in steps],
        "grad_norms": [step.grad_norm for step in steps],
        "evaluations": [event.score.loss for event in events if hasattr(event, "score")],
    }


def check(trace: Trace, name: str) -> None:
    """Compare a run with the numbers of the same run, in which each backend rounds in another order."""
    found, wanted = figures(trace.events), recorded()[name]
    assert found["losses"] == pytest.approx(wanted["losses"], rel=2e-5)
    assert found["evaluations"] == pytest.approx(wanted["evaluations"], rel=2e-5)
    if name not in RESUMED_RUNS:
        assert found["evaluations"][0] == pytest.approx(wanted["evaluations"][0], rel=1e-6)
    if trace.job.config.max_grad_norm or None not in found["grad_norms"]:  # Some have none where nothing is clipped.
        assert found["grad_norms"] == pytest.approx(wanted["grad_norms"], rel=1e-3)


def _resume(backend: Backend, folder: Path, options: dict[str, Any]) -> Trace:
    """Resume from a checkpoint of another backend: drawn weights and state, in the middle of an epoch."""
    job = training_job(backend, folder / "run", model=tiny_model(None, dropout=0.0), **options)
    _write_foreign(folder / "checkpoint", job, RESUMED_AT)
    return train(backend, replace(job, resume_from=folder / "checkpoint"))


def _write_foreign(folder: Path, job: TrainingJob, step: int) -> None:
    architecture = write_checkpoint(folder).architecture
    first, second = first_weights(architecture, seed=1), first_weights(architecture, seed=2)
    # The first weight of a norm is 1, for which a mean of gradients is too much.
    mean: Weights = {
        name: np.float32(0.1) * (first[name] - np.float32(len(shape) == 1))
        for name, shape in shapes(architecture).items()
    }
    square: Weights = {name: np.float32(0.01) * np.square(second[name]) + np.float32(1e-6) for name in mean}
    states = {name: State(_parts(job.config.optim, name, mean[name], square[name]), step) for name in mean}
    checkpoints.write_states(folder, states, optim=job.config.optim)
    marker = {"step": step, "backend": "another", **job.schedule.identity()}
    (folder / checkpoints.MARKER).write_text(json.dumps(marker), encoding="utf-8")


def _parts(optim: str, name: str, mean: Array, square: Array) -> dict[str, Array]:
    """What an optimizer keeps of a parameter whose gradients, and their squares, have these running means."""
    of = {"m": mean, "momentum": mean, "v": square, "row": square.mean(-1), "col": square.mean(-2 % square.ndim)}
    return {part: of[part] for part in rule_of(optim, name, mean.shape).state(mean.shape)}


def _record(name: str) -> None:
    from clm_core.registry import get_backend

    backend, found = get_backend(name), {}
    backend.start(verbose=False)
    with tempfile.TemporaryDirectory() as temporary:
        for title in (*RUNS, MASKED, *RESUMED_RUNS):
            found[title] = figures(run_again(backend, title, Path(temporary) / title).events)
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _record(*sys.argv[1:])
