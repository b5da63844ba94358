"""A TensorFlow model with an adapter trains the adapter alone, in the layers of transformers' own classes."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file
from shrink import shrink

from clm_core.adapters import LORA_B
from clm_core.backend import Model, StepDone
from clm_core.config import TrainConfig
from clm_core.errors import OptionError
from clm_core.models.causality import make_causal
from clm_core.testing import tiny
from clm_tf import PushToHubCallback, load, save, weights
from clm_tf.backend import TensorFlowOptions
from clm_tf.modeling import seeder
from clm_tf.optimizers import pytorch_name
from clm_tf.training import train

LORA = {"lora_r": 2, "lora_alpha": 8, "lora_dropout": 0.3, "lora_modules_to_save": ("ln_f",), "max_steps": 4}


def trained(job):
    """The losses of a training."""
    train(job)
    return [event.loss for event in job.report.__self__ if isinstance(event, StepDone)]


def written(folder):
    return load_file(folder / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def whole(new_job):
    """A job that has run, with a checkpoint in its middle, and its losses."""
    job = new_job(**LORA, save_strategy="steps", save_steps=2)
    return job, trained(job)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """A model of this type whose adapter adds something."""

    def build(kind):
        folder = tmp_path_factory.mktemp(kind)
        architecture = shrink(kind)
        make_causal(architecture)
        base = load(Model(name_or_path=None, revision="main", architecture=architecture, seed=3))
        save(base, folder)
        options = TrainConfig(lora_r=2, lora_dropout=0.5, lora_target_modules=("all-linear",))
        source = Model(name_or_path=str(folder), revision="main", architecture=base.config, seed=3)
        model = load(tiny.with_adapter(source, options, folder))
        filled = {name: np.full_like(array, 0.3) for name, array in weights.trained(model).items()}
        weights.assign_slots(model, lambda variable: variable, filled)
        return model

    return build


def logits(model, training):
    seeder(model)(5)
    return model(np.arange(10)[None] + 5, training=training, return_dict=True).logits.numpy()


def test_a_training_changes_the_adapter_and_what_is_saved_whole_and_nothing_else(whole):
    job, _ = whole
    model, ended = load(job.model), written(job.model_dir)
    began = {f"base_model.model.{name}": array for name, array in weights.trained(model).items()}
    assert ended.keys() == began.keys()
    assert {name.rpartition(".")[0] for name in ended if "lora" not in name} == {"base_model.model.transformer.ln_f"}
    assert all((array != began[name]).any() for name, array in ended.items())
    names = [name for name in weights.pytorch_names(model) if name.endswith(LORA_B)]
    assert len(names) == 2
    assert sum(map(np.size, began.values())) == sum(map(tf.size, model.trainable_variables)).numpy()


def test_a_training_goes_on_from_a_checkpoint_with_the_same_bits(whole, new_job):
    job, losses = whole
    checkpoint = job.output_dir / "checkpoint-2"
    rest = replace(new_job(**LORA), resume_from=checkpoint)
    assert trained(rest) == losses[2:]
    for name, array in written(rest.model_dir).items():
        np.testing.assert_array_equal(array, written(job.model_dir)[name])
    assert not (checkpoint / "model.safetensors").exists()


def test_the_folder_of_a_run_opens_with_its_base(whole):
    job, _ = whole
    found = {f"base_model.model.{name}": array for name, array in weights.trained(load(job.model_dir)).items()}
    assert found.keys() == written(job.model_dir).keys()
    assert all((array == written(job.model_dir)[name]).all() for name, array in found.items())


@pytest.mark.parametrize("kind", ["ctrl", "gpt2", "mistral", "xlm"])
def test_its_dropout_is_drawn_in_training_alone_whatever_the_class_tells_its_layers(kind, adapted):
    model = adapted(kind)
    np.testing.assert_array_equal(logits(model, False), logits(model, False))
    assert (logits(model, True) != logits(model, False)).any()
    np.testing.assert_array_equal(logits(model, True), logits(model, True))


def test_what_is_for_whole_models_is_refused(whole, adapted, monkeypatch):
    callback = PushToHubCallback.__new__(PushToHubCallback)
    callback.model = adapted("gpt2")
    with pytest.raises(ValueError, match="PushToHubCallback uploads whole models, and this one has an adapter"):
        callback.check_model()
    with pytest.raises(OptionError, match="tf guide: the guide trains the whole model"):
        train(replace(whole[0], options=TensorFlowOptions(guide=True)))


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_an_optimizer_knows_the_layers_of_an_adapter_by_pytorchs_names(adapted, kind):
    model = adapted(kind)
    assert {pytorch_name(variable) for variable in model.trainable_variables} == set(weights.trained(model))
