"""What one GPU can show of TensorFlow on several: a MirroredStrategy of one."""

import pytest
from support.jobs import new_blocks, new_job

from clm_core.backend import StepDone
from clm_tf import training
from clm_tf.backend import TensorFlowBackend


def test_a_strategy_of_one_device_makes_the_steps_without_one(tmp_path, monkeypatch):
    import tensorflow as tf

    device = "GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0"
    usual, mirrored = (new_job(TensorFlowBackend(), tmp_path / name, validation=new_blocks()) for name in ("a", "b"))
    TensorFlowBackend().train(usual)
    monkeypatch.setattr(training, "strategy_of", lambda world: tf.distribute.MirroredStrategy([device]))
    TensorFlowBackend().train(mirrored)
    one, other = (
        [event.loss for event in job.report.__self__ if isinstance(event, StepDone)] for job in (usual, mirrored)
    )
    assert other == pytest.approx(one, rel=1e-6)
