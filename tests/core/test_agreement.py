"""What processes compare before they train together: every option that counts, the weights and the data."""

from dataclasses import fields, replace

import numpy as np
import pytest
from support.jobs import new_job

from clm_core.backend import ALONE, World, check_same
from clm_core.backend.jobs import OF_ONE
from clm_core.config import AdapterOptions, EvaluationOptions, OptimizationOptions, PartsOptions, RunOptions
from clm_core.errors import OptionError
from clm_core.registry import get_backend
from clm_core.runs.agreement import in_common
from clm_core.testing.tiny import first_weights, tiny_gpt2, tiny_model, write_model

TWO = World(size=2)
GROUPS = (OptimizationOptions, PartsOptions, EvaluationOptions, AdapterOptions, RunOptions)
NAMES = sorted({field.name for group in GROUPS for field in fields(group)})


@pytest.mark.parametrize("name", NAMES)
def test_an_option_of_the_training_is_compared_unless_only_one_process_goes_by_it(name, tmp_path):
    job = new_job(get_backend("bigram"), tmp_path)
    config = replace(job.config)
    object.__setattr__(config, name, "something else")
    is_told = replace(job, config=config).identity() != job.identity()
    assert is_told == (name not in OF_ONE)


@pytest.fixture
def folder(tmp_path):
    write_model(tmp_path, tiny_gpt2(), first_weights(tiny_gpt2(), seed=1))
    return tmp_path


def changed(folder, name):
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights[name] = weights[name] + np.float32(0.5)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("name", ["transformer.wte.weight", "transformer.h.0.ln_1.bias", "transformer.ln_f.weight"])
def test_models_of_one_shape_with_other_weights_are_told_apart(folder, name):
    model = tiny_model(folder)
    one = in_common(model, {}, TWO)
    assert in_common(model, {}, TWO) == one
    changed(folder, name)
    with pytest.raises(OptionError, match="differs from process 0 in weights"):
        check_same([one, in_common(model, {}, TWO)])


def test_new_weights_are_told_apart_by_their_seed_and_data_by_its_digest():
    model = tiny_model(None)
    one = in_common(model, {"validation data": "a"}, TWO)
    assert in_common(replace(model, seed=model.seed + 1), {"validation data": "a"}, TWO)["weights"] != one["weights"]
    with pytest.raises(OptionError, match="in validation data, b in place of a"):
        check_same([one, in_common(model, {"validation data": "b"}, TWO)])


def test_one_process_reads_nothing_for_it(folder):
    (folder / "model.safetensors").unlink()
    assert in_common(tiny_model(folder), {}, ALONE) == {}
