"""What one GPU can show: one process of torchrun on its own backend, FSDP2 of one, and a MirroredStrategy of one."""

import pytest
from support.jobs import new_blocks, new_job
from support.torch_workers import Case, figures, train, train_together

from clm_core.backend import StepDone
from clm_tf import training
from clm_tf.backend import TensorFlowBackend

ENGINES = {"ddp": {}, "fsdp": {"fsdp": True}}


@pytest.fixture(scope="module")
def pytorch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    together = train_together(1, folder / "one", [Case(name=name, own=own) for name, own in ENGINES.items()])
    return together | {"alone": [train(Case(name="alone"), folder / "alone")]}


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(("figure", "bound"), [("loss", 1e-6), ("grad_norm", 2e-6)])
def test_a_process_of_torchrun_makes_the_steps_of_one_alone(name, figure, bound, pytorch):
    found, expected = (figures(pytorch[run][0], "StepDone", figure) for run in (name, "alone"))
    assert found == pytest.approx(expected, rel=bound)


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
