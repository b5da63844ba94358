"""The base of an adapter in a folder: another model in its place is named, wherever the adapter is used."""

import json
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import clm_core
from clm_core import sample
from clm_core.adapters import save_adapter
from clm_core.commands.verify import verify
from clm_core.config import PushConfig, TrainConfig
from clm_core.errors import ModelError
from clm_core.hub.pushing import push
from clm_core.inputs import _base
from clm_core.models.configurations import existing_model
from clm_core.record import write_results
from clm_core.results import TrainingResult
from clm_core.screen.progress import Progress
from clm_core.testing import tiny

LAYER = "transformer.h.1.attn.c_attn"
WEIGHTS = {f"{LAYER}.lora_A.weight": np.ones((2, 16), np.float32), f"{LAYER}.lora_B.weight": np.ones((48, 2))}
CONFIG = {"lora_r": 2, "lora_target_modules": (LAYER,)}


def write_base(folder, *, seed):
    architecture = tiny.tiny_gpt2()
    return tiny.write_model(folder, architecture, tiny.first_weights(architecture, seed=seed))


@pytest.fixture
def run(tmp_path):
    """The folder of a finished run with an adapter, beside the folder `base`."""
    model = tiny.with_adapter(write_base(tmp_path / "base", seed=1), TrainConfig(**CONFIG), tmp_path)
    shutil.copytree(sample.TOKENIZER, tmp_path / "run")
    save_adapter(WEIGHTS, model, tmp_path / "run")
    for name in ("run.yaml", "history.jsonl"):
        (tmp_path / "run" / name).write_text("{}")
    write_results(tmp_path / "run", dict.fromkeys(each.name for each in fields(TrainingResult)))
    return tmp_path / "run"


def resumed(run):
    base = str(run.with_name("base"))
    model = existing_model(base)
    return _base(model, TrainConfig(**CONFIG, model_name_or_path=base), run)


USES = {
    "merge": lambda run: clm_core.merge_adapter(run, output_dir=run.with_name("new")),
    "evaluate and generate": lambda run: existing_model(run),
    "resume": resumed,
    "push": lambda run: push(run, PushConfig(), Progress()),
}


@pytest.mark.parametrize("use", USES)
def test_another_model_in_the_place_of_the_base_is_an_error_that_names_the_file(run, use):
    write_base(run.with_name("base"), seed=2)
    with pytest.raises(ModelError, match=r"run is an adapter of .*base, whose .*: model.safetensors is another: put"):
        USES[use](run)


def test_verify_says_so_too(run):
    assert [part.state for part in verify(run, Progress()).parts] == ["whole", "whole"]
    write_base(run.with_name("base"), seed=2)
    result = verify(run, Progress())
    assert (result.state, result.parts[1].folder) == ("damaged", run.with_name("base"))
    assert "model.safetensors is another since the adapter in" in result.parts[1].faults[0]


@pytest.mark.parametrize("use", ["merge", "evaluate and generate", "resume"])
def test_a_base_that_moved_and_is_the_same_is_as_good_as_before(run, use):
    shutil.move(run.with_name("base"), run.with_name("moved"))
    run.with_name("base").symlink_to("moved")
    assert USES[use](run)
    assert [part.state for part in verify(run, Progress()).parts] == ["whole", "whole"]


def test_an_adapter_without_sums_of_its_base_is_taken_as_it_is(run):
    Path(run / "adapter_base.json").unlink()
    write_base(run.with_name("base"), seed=2)
    assert existing_model(run).adapter.base_files is None
    assert resumed(run).adapter.base_files is None


def test_a_resumed_adapter_keeps_the_sums_that_it_began_with(run):
    assert resumed(run).adapter.base_files == json.loads((run / "adapter_base.json").read_text())


def test_weights_that_are_read_before_those_of_the_base_are_another_model(run):
    sums = json.loads((run / "adapter_base.json").read_text())
    (run / "adapter_base.json").write_text(json.dumps({"model-00001-of-00001.safetensors": sums["model.safetensors"]}))
    with pytest.raises(ModelError, match=r"00001\.safetensors is missing, model\.safetensors is new"):
        existing_model(run)


def test_a_base_that_is_gone_is_named_by_verify(run):
    base = run.with_name("base").rename(run.with_name("elsewhere"))
    part = verify(run, Progress()).parts[-1]
    assert (part.kind, part.state) == ("base of an adapter", "damaged")
    assert part.faults[0].startswith("it is not there any more: put it back, or make a link to where it is now (ln -s")
    base.rename(run.with_name("base"))
    assert verify(run, Progress()).parts[-1].state == "whole"
