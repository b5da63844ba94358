"""The part of a device's peak that a training uses: of which devices and models it is known, and what it is."""

import pytest
from transformers import AutoConfig

from clm_core.backend import Model, StepDone
from clm_core.config import TrainConfig
from clm_core.runs.history import Recorder
from clm_core.runs.utilization import Utilization, flops_of_block, median_of, peak_of
from clm_core.schedule import Schedule
from clm_core.screen.progress import Progress

H100 = "NVIDIA H100 80GB HBM3"


def model_of(model_type="gpt2", **fields):
    architecture = AutoConfig.for_model(model_type, **fields)
    return Model(name_or_path=None, revision="main", architecture=architecture, seed=0)


@pytest.mark.parametrize(
    ("device", "bf16", "peak"),
    [
        (H100, True, 989.4e12),
        ("NVIDIA H100 PCIe", True, 756e12),
        ("NVIDIA A100-SXM4-40GB", False, 19.5e12),
        ("NVIDIA A10", True, 125e12),
        ("NVIDIA L40S", True, 362e12),
        ("Tesla T4", True, None),
        ("NVIDIA A10G", True, None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", True, None),
        ("NVIDIA GH200 480GB", True, None),
    ],
)
def test_the_peak_is_that_of_the_device_of_this_name_and_no_other(device, bf16, peak):
    assert peak_of(device, bf16=bf16) == peak


def test_the_operations_of_gpt2_are_those_of_the_paper():
    # 12 layers of 12 * 768^2, the output layer, and attention over 1,024 positions: PaLM, appendix B.
    expected = 1024 * (6 * (12 * 12 * 768**2 + 768 * 50257) + 12 * 12 * 768 * 1024)
    assert flops_of_block(model_of(), TrainConfig(block_size=1024)) == expected


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (model_of("mixtral"), {}),
        (model_of("mamba"), {}),
        (model_of(), {"freeze": ("transformer.h.0.*",)}),
        (model_of(), {"train_only": ("transformer.h.0.*",)}),
    ],
)
def test_where_the_formula_does_not_hold_nothing_is_guessed(model, options):
    assert flops_of_block(model, TrainConfig(**options)) is None
    assert Utilization.of(model, TrainConfig(**options), H100, 1) is None


@pytest.mark.parametrize("device", [None, "Somebody's GPU"])
def test_a_device_that_is_not_known_has_no_utilization(device):
    assert Utilization.of(model_of(), TrainConfig(), device, 1) is None


def test_a_line_of_the_history_has_the_utilization_of_its_steps(tmp_path):
    config = TrainConfig(max_steps=4, logging_steps=2, per_device_train_batch_size=3, save_strategy="no")
    known = Utilization(flops_of_block=1e-6, flops_per_second=1.0)
    followed = Recorder(
        *(Schedule.from_config(config, blocks=12), tmp_path, Progress()),
        block_size=11,
        validation_blocks=0,
        bytes_per_token=1.0,
        utilization=lambda: known,
    )
    with followed.recording():
        for step in range(1, 5):
            followed(StepDone(step=step, loss=1.0))
    assert all(0 < line["mfu"] <= 1 for line in followed.history)
    assert min(line["mfu"] for line in followed.history) <= median_of(followed.history)
    assert median_of([{"step": 1, "loss": 2.0}]) is None
    assert known.at(blocks=6, seconds=2.0) == 3e-6


def test_several_devices_can_do_as_many_times_more():
    one, four = (Utilization.of(model_of(), TrainConfig(bf16=True), H100, devices) for devices in (1, 4))
    assert four.at(8, 1.0) == one.at(8, 1.0) / 4
