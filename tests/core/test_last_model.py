"""The model of a run: copied from the checkpoint of its last step, if there is one, and compared with it."""

import numpy as np
import pytest
from clm_bigram import BigramBackend
from safetensors.numpy import load_file, save_file
from support.jobs import new_job

from clm_core import TrainConfig, checkpoints
from clm_core.errors import OutputError


@pytest.fixture
def job(tmp_path):
    def make(strategy="steps"):
        saving = {"save_strategy": strategy, "save_steps": 500, "save_total_limit": TrainConfig().save_total_limit}
        return new_job(BigramBackend(), tmp_path, max_steps=3, **saving)

    return make


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_model_that_the_last_step_saved_is_that_of_the_run(job, tmp_path):
    finished = job()
    with checkpoints.writing(finished, 3) as folder:
        save_file({"w": np.ones(3, np.float32)}, folder / "model.safetensors")
        save_file({"m.w": np.zeros(3, np.float32)}, folder / checkpoints.MOMENTS)
    assert checkpoints.take_last_model(finished)
    assert files(tmp_path / "model") == ["model.safetensors"]
    assert load_file(tmp_path / "model" / "model.safetensors")["w"].tolist() == [1.0] * 3


def test_a_model_that_no_checkpoint_has_is_still_to_be_written(job, tmp_path):
    assert not checkpoints.take_last_model(job("no"))
    assert files(tmp_path / "model") == []


def test_a_checkpoint_that_somebody_has_removed_at_once_is_not_missed(job, tmp_path):
    finished = job()
    with checkpoints.writing(finished, 3) as folder:
        (folder / "config.json").write_text("{}")
    (tmp_path / "checkpoint-3" / "checkpoint.json").unlink()
    assert not checkpoints.take_last_model(finished)


def test_what_is_damaged_on_the_way_is_named(job, tmp_path):
    finished = job()
    with checkpoints.writing(finished, 3) as folder:
        (folder / "config.json").write_text("{}")
    (tmp_path / "checkpoint-3" / "config.json").write_text("[]")
    with pytest.raises(OutputError, match=r"checkpoint-3 was not copied whole: config\.json does not match its check"):
        checkpoints.take_last_model(finished)
