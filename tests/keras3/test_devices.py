"""Several devices of one process train together; what does not go with them is refused by its name."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("keras")

from support.jobs import new_blocks, new_job, new_model
from transformers import Qwen3MoeConfig

from clm_core.backend import MaskedBlocks, World, count_predicted
from clm_core.errors import OptionError
from clm_core.schedule import Schedule
from clm_tf.blocks import even_steps
from clm_tf.keras3.backend import KerasBackend, KerasOptions

MIXTURE = Qwen3MoeConfig(num_experts=4, num_experts_per_tok=2, output_router_logits=True)


def job_of(folder, devices, **given):
    job = new_job(KerasBackend(), folder, max_steps=6, train_batch_size=7, per_device_train_batch_size=2, **given)
    schedule = Schedule.from_config(job.config, blocks=len(job.train), devices=devices)
    return replace(job, schedule=schedule, world=World(size=devices, local=devices))


def masked():
    mask = np.random.default_rng(1).integers(0, 2, (27, 12)).astype(np.uint8)
    return MaskedBlocks(new_blocks(), mask)


@pytest.mark.parametrize("blocks", [new_blocks(), masked()], ids=["plain", "masked"])
@pytest.mark.parametrize("devices", [2, 3, 4])
def test_the_devices_get_as_many_rows_and_what_counts_once(blocks, devices, tmp_path):
    schedule = job_of(tmp_path, devices).schedule
    elements = list(even_steps(blocks, schedule, 1, devices).as_numpy_iterator())
    steps = [elements[at : at + devices] for at in range(0, len(elements), devices)]
    for of_devices, (_, batches) in zip(steps, schedule.steps(1), strict=True):
        assert len({ids.shape for ids, _ in of_devices}) == 1
        counted = sum(np.count_nonzero(labels[:, 1:] >= 0) for _, labels in of_devices)
        assert counted == count_predicted(blocks, np.concatenate(batches))


def test_several_workers_are_refused_with_the_way_out(monkeypatch):
    cluster = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(OptionError, match=r"TF_CONFIG names 2 workers, .* use --backend tf"):
        KerasBackend().world(None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"own": KerasOptions(jit_compile=True)}, "keras jit_compile: XLA compiles a step for one device only"),
        ({"model": new_model(architecture=MIXTURE)}, "output_router_logits.* on one device only"),
    ],
)
def test_what_needs_one_device_is_refused(changes, said, tmp_path):
    with pytest.raises(OptionError, match=said):
        KerasBackend().train(job_of(tmp_path, 2, **changes))
