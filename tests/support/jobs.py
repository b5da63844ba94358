"""Jobs of training a tiny GPT-2 on blocks without meaning, for the tests of both frameworks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from clm_core.backend import Backend, Blocks, Model, TrainingJob
from clm_core.testing.tiny import VOCABULARY, tiny_gpt2, training_job


def new_blocks() -> Blocks:
    """27 blocks of 12 tokens: in batches of 4, an epoch ends with one of 3."""
    return np.random.default_rng(0).integers(0, VOCABULARY, (27, 12)).astype(np.uint16)


def new_model(
    name_or_path: Any = None,
    *,
    seed: int = 7,
    architecture: Any = None,
    ignore_unused_weights: bool = False,
    **changes: Any,
) -> Model:
    """A model from scratch or from a folder, without dropout unless asked for; `changes` are of its configuration."""
    return Model(
        name_or_path=None if name_or_path is None else str(name_or_path),
        revision="main",
        architecture=architecture or tiny_gpt2(**changes),
        seed=seed,
        ignore_unused_weights=ignore_unused_weights,
    )


def new_job(
    backend: Backend,
    folder: Path,
    *,
    model: Model | None = None,
    validation: Blocks | None = None,
    own: Any = None,
    report: Callable[[Any], None] | None = None,
    **given: Any,
) -> TrainingJob:
    """A job in a new folder, with what `training_job` takes; epochs are not limited by steps.

    `own` are the backend's own options. Where no `report` is given, `job.report.__self__` is the list of its events.
    """
    if "num_train_epochs" in given:
        given = {"max_steps": -1, **given}
    job = training_job(
        backend,
        folder,
        model=model or new_model(),
        blocks=(new_blocks(), validation),
        report=report or [].append,
        **{"save_total_limit": None, **given},
    )
    return replace(job, options=own) if own else job
