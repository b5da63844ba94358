"""What the tests of the TensorFlow backend start from: a tiny GPT-2, blocks without meaning, and short trainings."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

if not all(map(find_spec, ("tensorflow", "tf_keras"))):
    collect_ignore_glob = ["test_*.py"]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from support import jobs

from clm_core.backend import Blocks, Model, TrainingJob
from clm_tf.backend import TensorFlowBackend


@pytest.fixture(scope="session")
def blocks() -> Blocks:
    return jobs.new_blocks()


@pytest.fixture
def new_model() -> Callable[..., Model]:
    return jobs.new_model


@pytest.fixture(scope="module")
def new_job(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TrainingJob]:
    """A job with options of `TrainConfig` by keyword; `job.report.__self__` is the list of its events."""

    def build(**given: Any) -> TrainingJob:
        return jobs.new_job(TensorFlowBackend(), tmp_path_factory.mktemp("job") / "run", **given)

    return build
