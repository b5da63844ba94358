"""A tiny GPT-2, random blocks, and jobs for the TensorFlow backend."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if not all(map(find_spec, ("tensorflow", "tf_keras"))):
    collect_ignore_glob = ["test_*.py"]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from transformers import GPT2Config

from clm_core.backend import Blocks, Model, TrainingJob
from clm_core.config import TrainConfig
from clm_core.schedule import Schedule
from clm_tf.backend import TensorFlowOptions

VOCABULARY, POSITIONS, LENGTH = 64, 32, 12


@pytest.fixture(scope="session")
def blocks() -> Blocks:
    """27 blocks: with batches of 4, the last batch of an epoch has 3."""
    return np.random.default_rng(0).integers(0, VOCABULARY, (27, LENGTH)).astype(np.uint16)


@pytest.fixture
def new_model() -> Callable[..., Model]:
    def build(dropout: float = 0.0, **changes: Any) -> Model:
        architecture = GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=POSITIONS,
            n_embd=16,
            n_layer=2,
            n_head=2,
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
            bos_token_id=0,
            eos_token_id=0,
        )
        return Model(**{"name_or_path": None, "revision": "main", "architecture": architecture, "seed": 7} | changes)

    return build


@pytest.fixture
def new_job(tmp_path: Path, blocks: Blocks, new_model: Callable[..., Model]) -> Callable[..., TrainingJob]:
    """Build a job from options of `TrainConfig`; its events are collected in `job.report.__self__`."""

    def build(
        *, model: Model | None = None, validation: Any = None, resume_from: Path | None = None, **options: Any
    ) -> TrainingJob:
        defaults = {"per_device_train_batch_size": 4, "learning_rate": 1e-2, "save_strategy": "no"}
        config = TrainConfig(**(defaults | options))
        folders = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        (folders / "model").mkdir(parents=True)
        return TrainingJob(
            model=model or new_model(),
            train=blocks,
            validation=validation,
            schedule=Schedule.from_config(config, blocks=len(blocks)),
            config=config,
            options=TensorFlowOptions(),
            output_dir=folders,
            model_dir=folders / "model",
            resume_from=resume_from,
            report=[].append,
            backend="tf",
        )

    return build
