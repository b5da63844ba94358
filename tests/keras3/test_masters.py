"""Weights in bfloat16 beside float32 masters in Keras 3: what is updated, written, and kept in a file of Keras."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("keras")

import keras
from safetensors.numpy import load_file
from support.jobs import new_blocks, new_job, new_model

import clm_tf.keras3
from clm_core.backend import StepDone
from clm_core.config import EvaluateConfig, GenerateConfig
from clm_core.errors import OptionError
from clm_core.testing.parallel import OPTIONS as SMALL
from clm_tf.keras3 import NextToken, create_optimizer, load, modeling, training_dataset
from clm_tf.keras3.backend import KerasBackend
from clm_tf.keras3.training import train

HALF = {"dtype": "bfloat16"}
STEPS = [
    {"optim": "muon"},
    {"optim": "adafactor"},
    {"gradient_accumulation_steps": 2, "gradient_checkpointing": True},
    {"freeze": ("layers:0",), "embedding_learning_rate": 1e-3},
    {"lora_r": 2, "lora_modules_to_save": ("ln_f",)},
]
IDS = new_blocks()


@pytest.fixture
def policy():
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.fixture
def compiled(policy, tmp_path):
    """Makes a decoder with bfloat16 weights, compiled."""
    policy("bfloat16")
    job = new_job(KerasBackend(), tmp_path / "job", learning_rate=1e-5, gradient_accumulation_steps=2)

    def make():
        model = load(new_model())
        model.compile(create_optimizer(job.schedule, job.config), NextToken(), jit_compile=False)
        return model, job.schedule

    return make


def losses(job):
    train(job)
    return [event.loss for event in job.report.__self__ if isinstance(event, StepDone)]


def arrays(model):
    return [variable.numpy() for variable in model.variables]


@pytest.mark.parametrize("options", STEPS, ids=str)
def test_every_option_of_a_step_goes_together_with_them(options, tmp_path):
    rounded = losses(new_job(KerasBackend(), tmp_path / "rounded", **options, bf16=True))
    job = new_job(KerasBackend(), tmp_path / "half", **options, **HALF)
    assert losses(job) == pytest.approx(rounded, rel=2e-3)
    (file,) = job.model_dir.glob("*model.safetensors")
    assert {array.dtype.name for array in load_file(file).values()} == {"float32"}


def test_frozen_weights_are_written_as_they_were_read(tmp_path):
    clm_tf.keras3.save(load(new_model()), tmp_path / "stored")
    before = load_file(tmp_path / "stored" / "model.safetensors")
    stored = new_model(tmp_path / "stored")
    job = new_job(KerasBackend(), tmp_path / "run", model=stored, freeze=("layers:0", "wpe"), **HALF)
    train(job)
    after = load_file(job.model_dir / "model.safetensors")
    frozen = {name for name in before if ".h.0." in name or "wpe" in name}
    assert {name for name in before if before[name].tobytes() == after[name].tobytes()} == frozen


def test_variables_are_bfloat16_and_what_the_optimizer_has_is_float32(compiled):
    model, schedule = compiled()
    model.fit(training_dataset(IDS, schedule).take(4), verbose=0, shuffle=False)
    assert {variable.dtype for variable in model.trainable_variables} == {"bfloat16"}
    assert {variable.dtype for variable in model.optimizer.variables} == {"float32", "int32", "int64"}
    for variable in model.trainable_variables:
        np.testing.assert_array_equal(model.optimizer.master_of(variable).numpy().astype("bfloat16"), variable.numpy())


def test_fit_continues_from_a_keras_file_with_the_masters(compiled, tmp_path):
    (whole, schedule), (half, _) = compiled(), compiled()
    whole.fit(training_dataset(IDS, schedule), verbose=0, shuffle=False)
    half.fit(training_dataset(IDS, schedule).take(4), verbose=0, shuffle=False)
    half.save(tmp_path / "half.keras")
    other = load(tmp_path / "half.keras")
    other.fit(training_dataset(IDS, schedule, start_step=2), verbose=0, shuffle=False)
    for name in ("one", "other"):
        clm_tf.keras3.save(whole if name == "one" else other, tmp_path / name)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "other"))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert any(np.any(array != array.astype("bfloat16").astype(np.float32)) for array in one.values())


def test_a_variable_that_is_set_counts_more_than_its_master(compiled, tmp_path):
    model, schedule = compiled()
    model.fit(training_dataset(IDS, schedule).take(2), verbose=0, shuffle=False)
    model.positions.embeddings.assign(np.full(model.positions.embeddings.shape, 0.5))
    clm_tf.keras3.save(model, tmp_path / "set")
    assert (load_file(tmp_path / "set" / "model.safetensors")["transformer.wpe.weight"] == 0.5).all()
    model.fit(training_dataset(IDS, schedule, start_step=1).take(2), verbose=0, shuffle=False)
    assert np.abs(model.optimizer.master_of(model.positions.embeddings).numpy() - 0.5).max() < 1e-3


def test_weights_in_float16_are_refused(policy, tmp_path):
    policy("float16")
    job = new_job(KerasBackend(), tmp_path / "job")
    optimizer = create_optimizer(job.schedule, job.config)
    with pytest.raises(OptionError, match=r"is float16, in which an update .* rounds to nothing: use .* mixed_float16"):
        optimizer.build(load(new_model()).trainable_variables)


def test_options_say_the_policy():
    def policy_of(options):
        with modeling.precision_of(options):
            return keras.config.dtype_policy().name

    assert policy_of(EvaluateConfig()) == policy_of(GenerateConfig()) == "float32"
    assert policy_of(EvaluateConfig(bf16=True)) == "mixed_bfloat16"
    assert policy_of(EvaluateConfig(bf16=True, **HALF)) == policy_of(GenerateConfig(**HALF)) == "bfloat16"


def test_two_devices_make_the_run_of_one(tmp_path):
    def run(devices):
        command = [sys.executable, "-m", "clm_core", "--backend", "keras", "train", *SMALL, "--dtype", "bfloat16"]
        subprocess.run([*command, "--nproc-per-node", devices, "--output-dir", tmp_path / devices], check=True)
        lines = map(json.loads, (tmp_path / devices / "history.jsonl").read_text().splitlines())
        return [line["loss"] for line in lines if "loss" in line]

    one, two = run("1"), run("2")
    assert len(one) == 8
    assert two == pytest.approx(one, rel=1e-4)
