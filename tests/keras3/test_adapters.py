"""A decoder with an adapter trains the adapter alone, and is saved by clm and by Keras."""

import numpy as np
import pytest

pytest.importorskip("keras")

import keras
from safetensors.numpy import load_file
from support.jobs import new_job

import clm_tf.keras3
from clm_core.adapters import LORA_B
from clm_core.backend import StepDone
from clm_core.errors import OptionError
from clm_tf.keras3 import adapters, load, weights
from clm_tf.keras3.backend import KerasBackend
from clm_tf.keras3.callbacks import StepSeeds
from clm_tf.keras3.datasets import training_dataset
from clm_tf.keras3.optimization import NextToken, create_optimizer
from clm_tf.keras3.push_to_hub import PushToHubCallback
from clm_tf.keras3.training import train

IDS = np.arange(24).reshape(2, 12)
LORA = {"lora_r": 2, "lora_alpha": 8, "lora_dropout": 0.3, "lora_modules_to_save": ("ln_f",), "max_steps": 4}
SAVING = {"save_strategy": "steps", "save_steps": 2}


def job_of(folder, **given):
    return new_job(KerasBackend(), folder, **{**LORA, **given})


def trained(job):
    """The losses of a training."""
    train(job)
    return [event.loss for event in job.report.__self__ if isinstance(event, StepDone)]


def written(folder):
    return load_file(folder / "adapter_model.safetensors")


def compiled(model, job):
    model.compile(create_optimizer(job.schedule, job.config), NextToken(), jit_compile=False)
    return model


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that has run: its losses, its folder, and what it has written."""
    folder = tmp_path_factory.mktemp("whole")
    losses = trained(job_of(folder, **SAVING))
    return losses, folder, written(folder / "model")


@pytest.fixture
def job(tmp_path):
    return job_of(tmp_path / "job")


@pytest.fixture
def model(job):
    """A model whose adapter adds something."""
    model = load(job.model)
    for name, (variable, _) in weights.trained(model).items():
        variable.assign(np.full(variable.shape, 0.3 if name.endswith(LORA_B) else 0.1))
    return model


def test_a_training_changes_the_adapter_and_what_is_saved_whole_and_nothing_else(job):
    model = load(job.model)
    base = {name: weights.array_of(*pair) for name, pair in weights.named(model).items()}
    compiled(model, job).fit(training_dataset(job.train, job.schedule), verbose=0)
    changed = {name for name, pair in weights.named(model).items() if (weights.array_of(*pair) != base[name]).any()}
    assert changed == {"transformer.ln_f.weight", "transformer.ln_f.bias"} <= weights.trained(model).keys()
    assert all(variable.numpy().any() for variable, _ in weights.trained(model).values())
    assert len(model.trainable_variables) == len(weights.trained(model)) == 2 * 2 + 2


def test_dropout_of_an_adapter_is_drawn_by_the_step_and_in_training_alone(model):
    model.batches.assign(5)
    first, second = (model(IDS, training=True) for _ in range(2))
    assert (first != second).numpy().any()
    model.batches.assign(5)
    np.testing.assert_array_equal(model(IDS, training=True), first)
    np.testing.assert_array_equal(model(IDS), model(IDS, training=False))


def test_recomputing_draws_no_other_masks(whole, tmp_path):
    losses = trained(job_of(tmp_path / "lean", gradient_checkpointing=True))
    assert losses == pytest.approx(whole[0], rel=1e-6)


def test_a_training_goes_on_from_a_checkpoint_with_the_same_bits(whole, tmp_path):
    losses, folder, ended = whole
    assert trained(job_of(tmp_path / "rest", resume_from=folder / "checkpoint-2", **SAVING)) == losses[2:]
    for name, array in written(tmp_path / "rest" / "model").items():
        np.testing.assert_array_equal(array, ended[name])
    assert not (folder / "checkpoint-2" / "model.safetensors").exists()


def test_keras_saves_a_model_with_its_adapter_and_goes_on_with_it(whole, job, tmp_path):
    model, seeds = compiled(load(job.model), job), StepSeeds(job.schedule)
    model.fit(training_dataset(job.train, job.schedule).take(2), callbacks=[seeds], verbose=0)
    model.save(tmp_path / "half.keras")
    other = load(tmp_path / "half.keras")
    other.fit(training_dataset(job.train, job.schedule, start_step=2), callbacks=[seeds], verbose=0)
    clm_tf.keras3.save(other, tmp_path / "saved")
    found = written(tmp_path / "saved")
    assert found.keys() == whole[2].keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, whole[2][name])


def test_the_folder_of_a_run_opens_with_its_base(whole, job):
    model, begun = load(whole[1] / "model"), load(job.model)
    found = {f"base_model.model.{name}": weights.array_of(*pair) for name, pair in weights.trained(model).items()}
    assert found.keys() == whole[2].keys()
    assert all((array == whole[2][name]).all() for name, array in found.items())
    assert (model(IDS) != begun(IDS)).numpy().any()


def test_an_exported_model_adds_what_its_adapter_does(model, tmp_path):
    import tensorflow as tf

    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "served"))
    np.testing.assert_allclose(served.serve(IDS), model(IDS), atol=1e-5)


def test_what_is_for_whole_models_is_refused(model, monkeypatch):
    with pytest.raises(OptionError, match="enable_lora: the model has an adapter already"):
        model.enable_lora(2)
    callback = PushToHubCallback.__new__(PushToHubCallback)
    monkeypatch.setattr(callback, "_model", model, raising=False)
    with pytest.raises(ValueError, match="PushToHubCallback uploads whole models, and this one has an adapter"):
        callback.check_model()


def test_what_is_one_module_in_transformers_5_gets_no_adapter_there(monkeypatch):
    layer = keras.layers.Dense(2)
    for series, can in ((4, True), (5, False)):
        monkeypatch.setattr(adapters, "installed", lambda series=series: series)
        assert adapters._can_have_one(layer, "experts.up") is adapters._can_have_one(layer, "router") is can
        assert adapters._can_have_one(layer, "query")
