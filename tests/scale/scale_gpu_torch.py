"""What one GPU can show of PyTorch on several: one process of torchrun, and FSDP2 of one."""

import pytest
from support.torch_workers import Case, figures, train, train_together

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
