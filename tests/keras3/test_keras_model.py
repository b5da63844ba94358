"""A decoder is a model as Keras people know it: fitted, saved, exported, given LoRA and dtype policies."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("keras")

import keras

import clm_core as clm
import clm_tf.keras3
from clm_core.backend import Model
from clm_core.errors import ModelError, OptionError
from clm_core.models.configurations import existing_model
from clm_core.optimizer import rule_of
from clm_tf.keras3 import NextToken, create_optimizer, load, training_dataset
from clm_tf.keras3.weights import named
from tests.keras3.plain_decoders import PLAIN

IDS = np.random.default_rng(0).integers(4, 128, (8, 12)).astype(np.int32)
CONFIG = clm.TrainConfig(
    max_steps=4, learning_rate=1e-2, per_device_train_batch_size=2, gradient_accumulation_steps=2, model_type="gpt2"
)
SCHEDULE = clm.Schedule.from_config(CONFIG, blocks=len(IDS))

CONTINUE = """
import sys
from dataclasses import replace
import numpy as np
from clm_tf.keras3 import load, training_dataset
ids = np.load("ids.npy")
model = load("half.keras")
np.save("half.npy", model(ids).numpy())
model.fit(training_dataset(ids, model.optimizer.schedule, start_step=2), verbose=0)
np.save("end.npy", model(ids).numpy())
assert "pickle" not in open("half.keras", "rb").read().decode("latin-1")
"""


def built(kind="gpt2", **changes):
    """A small decoder with its first weights."""
    from transformers import AutoConfig

    architecture = AutoConfig.for_model(kind, **{**PLAIN[kind], **changes})
    return load(Model(name_or_path=None, revision="main", architecture=architecture, seed=1))


@pytest.fixture
def model():
    return built()


@pytest.fixture
def policy():
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def compiled(model):
    model.compile(optimizer=create_optimizer(SCHEDULE, CONFIG), loss=NextToken(), jit_compile=False)
    return model


def difference(one, other):
    return np.abs(np.asarray(one) - np.asarray(other)).max()


def test_keras_own_optimizer_fits_evaluates_and_predicts_arrays(model):
    model.compile(optimizer=keras.optimizers.AdamW(1e-2), loss=NextToken(), jit_compile=False)
    history = model.fit(IDS, IDS, batch_size=4, epochs=3, verbose=0).history["loss"]
    assert model.evaluate(IDS, IDS, verbose=0) < history[-1] < history[0]
    assert difference(model.predict(IDS, verbose=0), model(IDS)) < 1e-5


def test_another_process_goes_on_from_a_keras_file_as_if_there_had_been_no_end(tmp_path):
    dropping = {"embd_pdrop": 0.1, "attn_pdrop": 0.1, "resid_pdrop": 0.1}
    whole, half = compiled(built(**dropping)), compiled(built(**dropping))
    whole.fit(training_dataset(IDS, SCHEDULE), verbose=0)
    half.fit(training_dataset(IDS, SCHEDULE).take(4), verbose=0)
    half.save(tmp_path / "half.keras")
    np.save(tmp_path / "ids.npy", IDS)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", CONTINUE], cwd=tmp_path, env=environment, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "half.npy"), half(IDS))
    np.testing.assert_array_equal(np.load(tmp_path / "end.npy"), whole(IDS))


def test_weights_of_keras_return(model, tmp_path):
    model.save_weights(tmp_path / "own.weights.h5")
    other = type(model).from_config(model.get_config())
    other.load_weights(tmp_path / "own.weights.h5")
    np.testing.assert_array_equal(other(IDS), model(IDS))


def test_a_file_that_is_no_decoder_is_named(tmp_path):
    keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(2)]).save(tmp_path / "x.keras")
    with pytest.raises(ModelError, match=r"x\.keras holds a Sequential"):
        load(tmp_path / "x.keras")
    (tmp_path / "y.keras").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"y\.keras cannot be read"):
        load(tmp_path / "y.keras")


@pytest.mark.parametrize("kind", ["gpt2", "gemma3_text"])
def test_an_exported_model_computes_the_same_for_any_rows_and_length(kind, tmp_path):
    import tensorflow as tf

    model = built(kind)
    model.export(tmp_path / "saved", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "saved"))
    for ids in (IDS, IDS[:3, :5], np.tile(IDS, 2)):
        assert difference(served.serve(ids), model(ids)) <= 1e-5 * np.std(model(ids))


def test_litert_computes_the_same_and_needs_a_shape(model, tmp_path):
    import tensorflow as tf

    with pytest.raises(OptionError, match="litert needs a fixed shape"):
        model.export(tmp_path / "x.tflite", format="litert")
    signature = [keras.InputSpec(shape=IDS.shape, dtype="int32")]
    model.export(tmp_path / "x.tflite", format="litert", input_signature=signature, verbose=False)
    runner = tf.lite.Interpreter(str(tmp_path / "x.tflite")).get_signature_runner()
    (logits,) = runner(**dict.fromkeys(runner.get_input_details(), IDS)).values()
    assert difference(logits, model(IDS)) <= 1e-5 * np.std(model(IDS))


@pytest.mark.parametrize("layers", [None, ["embeddings", "query", "down"]])
def test_lora_trains_its_matrices_alone_and_saving_writes_the_sums(layers, tmp_path):
    model = built("qwen2")
    before = model(IDS).numpy()
    base = {id(variable): variable.numpy() for variable in model.variables}
    model.enable_lora(2) if layers is None else model.enable_lora(2, layers)
    np.testing.assert_array_equal(model(IDS), before)
    compiled(model).fit(training_dataset(IDS, SCHEDULE), verbose=0)
    kept = [variable for variable in model.variables if id(variable) in base and variable is not model.batches]
    assert all((variable.numpy() == base[id(variable)]).all() for variable in kept)
    assert difference(model(IDS), before) > 1e-3
    clm_tf.keras3.save(model, tmp_path / "run")
    assert difference(load(tmp_path / "run")(IDS), model(IDS)) < 1e-6
    model.save(tmp_path / "own.keras")
    assert difference(keras.saving.load_model(tmp_path / "own.keras", compile=False)(IDS), model(IDS)) < 1e-6


def test_lora_on_a_layer_that_is_not_there_names_those_that_are(model):
    with pytest.raises(OptionError, match=r"no layer q_proj; it has down, embeddings, output, .* query_key_value, up"):
        model.enable_lora(2, ["q_proj"])


def test_lora_of_no_rank_is_refused(model):
    with pytest.raises(OptionError, match="enable_lora: rank 0 would add nothing"):
        model.enable_lora(0)


def test_lora_takes_the_name_of_one_layer(model):
    model.enable_lora(2, "down")
    assert len(model.trainable_variables) == 2 * len(model.blocks)


def test_a_quantized_model_is_not_written_as_if_it_were_whole(model, tmp_path):
    model.embeddings.quantize("int8")
    with pytest.raises(ModelError, match="embeddings was quantized to int8"):
        clm_tf.keras3.save(model, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16", "bfloat16", "float16"])
def test_a_dtype_policy_computes_nearly_the_same_and_stays_in_a_file(name, policy, tmp_path):
    exact = built("llama")(IDS).numpy()
    policy(name)
    model = built("llama")
    assert {variable.dtype for variable in model.trainable_variables} == {name if "mixed" not in name else "float32"}
    logits = model(IDS)
    assert logits.dtype == "float32"
    assert difference(logits, exact) < 0.05 * np.std(exact)
    model.save(tmp_path / "x.keras")
    policy("float32")
    np.testing.assert_array_equal(load(tmp_path / "x.keras")(IDS), logits)


@pytest.mark.parametrize("name", ["float64", "int8_from_float32"])
def test_a_dtype_policy_in_which_it_does_not_compute_is_named(name, policy):
    policy(name)
    with pytest.raises(OptionError, match=f"dtype policy {name}"):
        built()


def test_a_clone_and_a_configuration_are_the_same_model_without_its_weights(model):
    for other in (keras.models.clone_model(model), type(model).from_config(model.get_config())):
        assert other.fields == model.fields
        assert other.count_params() == model.count_params()
    lines = []
    model.summary(print_fn=lines.append)
    assert "embeddings (Embedding)" in lines[0]


def test_all_of_a_tensor_that_was_cut_off_after_opening_is_missed(model, tmp_path):
    from clm_core.models.weight_files import StoredWeights

    clm_tf.keras3.save(model, tmp_path)
    stored = StoredWeights.of(existing_model(tmp_path))
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) - 8)
    with pytest.raises(ModelError, match="it ends before its last tensor"):
        [stored.get_tensor(name) for name in stored]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "cohere", "opt", "mixtral"])
def test_muon_is_for_the_matrices_that_the_core_says(kind):
    model = built(kind)
    optimizer = create_optimizer(SCHEDULE, replace(CONFIG, optim="muon"))
    optimizer.build(model.trainable_variables)
    found = {name: set(optimizer.state_of(variable)) for name, (variable, _) in named(model).items()}
    shapes = {name: tuple(variable.shape) for name, (variable, _) in named(model).items()}
    assert found == {name: set(rule_of("muon", name, shape).state(shape)) for name, shape in shapes.items()}


@pytest.mark.parametrize("optim", ["adafactor", "muon"])
def test_fit_continues_by_another_optimizer_from_a_keras_file(optim, tmp_path):
    config = replace(CONFIG, optim=optim)
    whole, half = built(), built()
    for model in (whole, half):
        model.compile(optimizer=create_optimizer(SCHEDULE, config), loss=NextToken(), jit_compile=False)
    whole.fit(training_dataset(IDS, SCHEDULE), verbose=0)
    half.fit(training_dataset(IDS, SCHEDULE).take(4), verbose=0)
    half.save(tmp_path / "half.keras")
    other = load(tmp_path / "half.keras")
    assert type(other.optimizer).__name__.lower() == optim
    other.fit(training_dataset(IDS, SCHEDULE, start_step=2), verbose=0)
    np.testing.assert_array_equal(other(IDS), whole(IDS))
