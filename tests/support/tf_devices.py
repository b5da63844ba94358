"""Trains a tiny GPT-2 on several devices, or as one of several processes, and prints as JSON what it saw.

`python tests/support/tf_devices.py FOLDER NPROC_PER_NODE STOPPED`: how many devices, and the rank of the process
that is asked to stop; `-` for the number that TF_CONFIG says, and for no process.
"""

import hashlib
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from clm_core.backend import Evaluated, StepDone
from clm_core.errors import OptionError
from clm_core.schedule import Schedule
from clm_core.stopping import Stop
from clm_tf import modeling
from clm_tf.backend import TensorFlowBackend, TensorFlowOptions
from support import jobs

OPTIONS: dict[str, Any] = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 2,
    "train_batch_size": 7,
    "learning_rate": 1e-3,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "model": jobs.new_model(n_layer=1),
    "weight_decay": 0.5,
}
"""27 blocks: three steps of 7, and one of 6. Three devices have 3 + 2 + 2 of 7, each in two batches."""


def job_of(folder: Path, nproc_per_node: str | None, **given: Any) -> Any:
    """A job for these devices; `job.report.__self__` is the list of its events."""
    backend = TensorFlowBackend()
    world = backend.world(nproc_per_node)
    own = folder / f"process-{world.rank}"
    job = jobs.new_job(backend, own, validation=jobs.new_blocks()[:7], **{**OPTIONS, **given})
    schedule = Schedule.from_config(job.config, blocks=len(job.train), devices=world.size)
    return replace(job, world=world, schedule=schedule, output_dir=folder, stop=Stop(together=not world.is_one_process))


def seen(events: list[Any]) -> dict[str, Any]:
    """The losses and norms of the steps, and the scores."""
    steps = [(event.loss, event.grad_norm) for event in events if isinstance(event, StepDone)]
    scores = [event.score for event in events if isinstance(event, Evaluated)]
    return {"steps": steps, "scores": [(score.loss_sum, score.correct, score.tokens) for score in scores]}


def bits_of(model: Any, device: int) -> str:
    """What two devices have in common if and only if the weights on them are equal bit for bit."""
    copies = (model.distribute_strategy.experimental_local_results(variable)[device] for variable in model.weights)
    return hashlib.sha256(b"".join(copy.numpy().tobytes() for copy in copies)).hexdigest()


def main(folder: Path, nproc_per_node: str | None, asked_to_stop: int | None) -> dict[str, Any]:
    """Train; a process is asked to stop after a step, if it is the one of this rank."""
    models, load = [], modeling.load
    modeling.load = lambda source: models.append(load(source)) or models[-1]
    events, requested = [], []

    def report(event: Any) -> None:
        events.append(event)
        if isinstance(event, StepDone):
            requested.append(job.stop.requested)
            if job.world.rank == asked_to_stop and event.step == 2:
                job.stop.ask(signal.SIGTERM)

    job = job_of(folder, nproc_per_node, report=report)
    TensorFlowBackend().train(job)
    files = sorted(path.name for path in job.model_dir.iterdir())
    bits = {bits_of(models[0], device) for device in range(job.world.local)}
    return {**seen(events), "bits": sorted(bits), "requested": requested, "files": files}


def refused(folder: Path, nproc_per_node: str | None, **given: Any) -> str:
    """The error of a training."""
    try:
        TensorFlowBackend().train(job_of(folder, nproc_per_node, **given))
    except OptionError as error:
        return str(error)
    raise AssertionError("it was not refused")


def another(folder: Path, nproc_per_node: str) -> int:
    """How many steps the training of a model of other shapes makes, in the same process."""
    events: list[Any] = []
    job = job_of(folder, nproc_per_node, model=jobs.new_model(n_layer=2, n_embd=24), report=events.append)
    TensorFlowBackend().train(job)
    return len(seen(events)["steps"])


if __name__ == "__main__":
    place, count, other = Path(sys.argv[1]), *(None if given == "-" else given for given in sys.argv[2:4])
    if count is None:  # The rates of the processes differ.
        rate = 1e-3 / (1 + json.loads(os.environ["TF_CONFIG"])["task"]["index"])
        found: dict[str, Any] = {"refused": refused(place / "other", None, learning_rate=rate)}
    else:
        found = {"refused": refused(place / "other", count, own=TensorFlowOptions(jit_compile=True))}
    found |= main(place, count, other and int(other))
    if count is not None:
        found["steps of another"] = another(place / "another", count)
    print(json.dumps(found))
