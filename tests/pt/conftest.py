"""What the tests of the PyTorch backend start from: a tiny GPT-2, blocks without meaning, and short trainings."""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if not all(map(find_spec, ("torch", "accelerate"))):
    collect_ignore_glob = ["test_*.py"]

from support import jobs

from clm_core.backend import Blocks, Model, TrainingJob
from clm_pt.backend import PyTorchBackend, PyTorchOptions


@pytest.fixture(scope="session")
def blocks() -> Blocks:
    return jobs.new_blocks()


@pytest.fixture
def new_model() -> Callable[..., Model]:
    return jobs.new_model


@pytest.fixture
def new_job(tmp_path: Path) -> Callable[..., TrainingJob]:
    """A job with options of `TrainConfig` by keyword; `job.report.__self__` is the list of its events."""

    def build(*, output_dir: Path | None = None, pt: PyTorchOptions | None = None, **given: Any) -> TrainingJob:
        folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        job = jobs.new_job(PyTorchBackend(), folder, own=pt, **given)
        return replace(job, output_dir=output_dir) if output_dir else job

    return build


@pytest.fixture
def by_hand() -> Callable[..., dict[str, Any]]:
    """The weights after AdamW in a plain loop; a phase is a job, and the step that it goes on to."""
    import torch

    from clm_pt import modeling
    from clm_pt.optimization import clip

    def train_by_hand(*phases: tuple[TrainingJob, int]) -> dict[str, Any]:
        model = modeling.load(phases[0][0].model)
        groups = [[weight for weight in model.parameters() if (weight.ndim == 2) == decays] for decays in (True, False)]
        optimizer, step = torch.optim.AdamW([{"params": group} for group in groups]), 0
        for job, end in phases:
            batches = [rows for epoch in range(3) for rows in job.schedule.batches(epoch)]
            for step in range(step, end):  # noqa: B020
                for group, decay in zip(optimizer.param_groups, (job.config.weight_decay, 0.0), strict=True):
                    group.update(lr=job.schedule.learning_rate_at(step), weight_decay=decay)
                    group.update(betas=(job.config.adam_beta1, job.config.adam_beta2), eps=job.config.adam_epsilon)
                ids = torch.from_numpy(job.train[batches[step]].astype(np.int64))
                model(ids, labels=ids).loss.backward()
                clip(model.parameters(), job.config.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
            step = end
        return model.state_dict()

    return train_by_hand
