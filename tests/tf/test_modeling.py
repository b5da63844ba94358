"""Weights cross to PyTorch's layout and back, and never come from nowhere."""

import json
import subprocess
import sys
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from safetensors.numpy import load_file, save_file
from transformers import (
    AutoTokenizer,
    CTRLConfig,
    LlamaConfig,
    MistralConfig,
    RobertaConfig,
    TFGPT2LMHeadModel,
    TransfoXLConfig,
    XLMConfig,
)

from clm_core import sample
from clm_core.errors import ModelError, OptionError, OutputError
from clm_tf import modeling


@pytest.fixture
def saved(new_model, tmp_path):
    """A folder with a saved model, and its weights."""
    model = modeling.load(new_model())
    modeling.save(model, tmp_path)
    return tmp_path, model.get_weights()


def reload(new_model, folder):
    return modeling.load(new_model(name_or_path=str(folder), seed=8))


def assert_equal(model, weights):
    for found, expected in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_folder_is_enough_to_load_from_and_a_tokenizer_is_saved_beside(new_model, tmp_path):
    model = modeling.load(new_model())
    tokenizer = AutoTokenizer.from_pretrained(sample.TOKENIZER)
    modeling.save(model, str(tmp_path / "new" / "run"), tokenizer)
    assert AutoTokenizer.from_pretrained(tmp_path / "new" / "run").get_vocab() == tokenizer.get_vocab()
    assert_equal(modeling.load(str(tmp_path / "new" / "run")), model.get_weights())
    with pytest.raises(ModelError, match=r"no config\.json"):
        modeling.load(tmp_path)


def test_a_stage_loads_without_a_word_of_the_framework_and_a_wrong_folder_is_found_at_once(saved):
    script = "import clm_tf, sys\nprint('tensorflow' in sys.modules)\nfor name in sys.argv[1:]: clm_tf.load(name)"
    command = [sys.executable, "-c", script, str(saved[0]), f"{saved[0]}x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "False\n"
    assert done.stderr.startswith("Traceback")
    assert f"model: there is no folder {saved[0]}x; did you mean {saved[0]}?" in done.stderr


def test_saved_weights_come_back_bit_for_bit(new_model, saved):
    folder, weights = saved
    assert_equal(reload(new_model, folder), weights)


def test_the_file_has_pytorchs_names_and_shapes_and_the_tied_head_once(saved):
    tensors = load_file(saved[0] / "model.safetensors")
    assert len(tensors) == 2 + 2 * 12 + 2
    assert tensors["transformer.wte.weight"].shape == (64, 16)
    assert tensors["transformer.h.0.attn.c_attn.weight"].shape == (16, 48)
    assert tensors["transformer.h.0.attn.c_attn.bias"].shape == (48,)
    assert "lm_head.weight" not in tensors


def test_the_config_names_the_pytorch_class_and_the_type_of_the_weights(saved):
    config = json.loads((saved[0] / "config.json").read_text())
    assert config["architectures"] == ["GPT2LMHeadModel"]
    assert config["dtype"] == "float32"
    assert (saved[0] / "generation_config.json").is_file()


def test_a_checkpoint_of_the_bare_transformer_with_its_buffers_can_be_read(new_model, saved):
    folder, weights = saved
    tensors = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("transformer."): array for name, array in tensors.items()}
    save_file({**bare, "h.0.attn.bias": np.tril(np.ones((1, 1, 32, 32), np.float32))}, folder / "model.safetensors")
    assert_equal(reload(new_model, folder), weights)


def test_a_sharded_checkpoint_can_be_read(new_model, saved):
    folder, weights = saved
    tensors = load_file(folder / "model.safetensors")
    parts = {f"part-{i}.safetensors": dict(list(tensors.items())[i::2]) for i in range(2)}
    for file, part in parts.items():
        save_file(part, folder / file, metadata={"format": "pt"})
    where = {name: file for file, part in parts.items() for name in part}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    assert_equal(reload(new_model, folder), weights)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_a_half_precision_checkpoint_is_read_as_float32(new_model, saved, dtype):
    folder, weights = saved
    tensors = load_file(folder / "model.safetensors")
    save_file({name: array.astype(dtype) for name, array in tensors.items()}, folder / "model.safetensors")
    assert_equal(reload(new_model, folder), [array.astype(dtype).astype(np.float32) for array in weights])


def test_quantised_weights_are_refused_with_a_configuration_that_says_so_and_without(new_model, saved):
    tensors = load_file(saved[0] / "model.safetensors")
    name = "transformer.wte.weight"
    save_file({**tensors, name: tensors[name].astype(np.int8)}, saved[0] / "model.safetensors")
    with pytest.raises(ModelError, match=r"transformer\.wte\.weight has type I8"):
        reload(new_model, saved[0])
    model = new_model(name_or_path=str(saved[0]))
    model.architecture.quantization_config = {"quant_method": "gptq"}
    with pytest.raises(ModelError, match=r"quant_method 'gptq'.* backend tf"):
        modeling.load(model)


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "h5"])
def test_a_checkpoint_in_tensorflows_own_layout_can_be_read(new_model, tmp_path, safe):
    native = TFGPT2LMHeadModel(new_model().architecture)
    native.build_in_name_scope()
    native.save_pretrained(tmp_path, safe_serialization=safe)
    assert_equal(reload(new_model, tmp_path), native.get_weights())


def test_a_tensor_that_the_model_does_not_use_is_refused_by_name_unless_it_is_to_be_ignored(new_model, saved):
    folder, before = saved
    tensors = load_file(folder / "model.safetensors")
    extra = {"transformer.h.0.attn.c_attn.lora_A.weight": np.ones((4, 16), np.float32)}
    save_file({**tensors, **extra}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"does not use: transformer\.h\.0\.attn\.c_attn\.lora_A\.weight;"):
        reload(new_model, folder)
    assert_equal(modeling.load(new_model(name_or_path=str(folder), ignore_unused_weights=True)), before)


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "h5"])
def test_layers_that_the_configuration_does_not_count_are_refused_in_tensorflows_layout_too(new_model, tmp_path, safe):
    native = TFGPT2LMHeadModel(new_model().architecture)
    native.build_in_name_scope()
    native.save_pretrained(tmp_path, safe_serialization=safe)
    architecture = new_model().architecture
    architecture.n_layer = 1
    with pytest.raises(ModelError, match=r"does not use: transformer\.h\.1\..* and 7 more;"):
        modeling.load(new_model(name_or_path=str(tmp_path), architecture=architecture))


def test_missing_weights_are_refused_by_name(new_model, saved):
    tensors = load_file(saved[0] / "model.safetensors")
    del tensors["transformer.h.1.mlp.c_fc.bias"]
    save_file(tensors, saved[0] / "model.safetensors")
    with pytest.raises(ModelError, match=r"lack 1 of the model's tensors.*: transformer\.h\.1\.mlp\.c_fc\.bias$"):
        reload(new_model, saved[0])


def test_weights_of_another_size_are_refused(new_model, saved):
    architecture = new_model().architecture
    architecture.n_embd = 32
    with pytest.raises(
        ModelError,
        match=r"in another shape: transformer\.h\.0\.attn\.c_attn\.bias",
    ):
        modeling.load(new_model(name_or_path=str(saved[0]), architecture=architecture))


def test_an_output_layer_that_is_not_tied_is_refused(new_model, saved):
    tensors = load_file(saved[0] / "model.safetensors")
    save_file({**tensors, "lm_head.weight": np.ones((64, 16), np.float32)}, saved[0] / "model.safetensors")
    with pytest.raises(ModelError, match=r"lm_head\.weight differs from"):
        reload(new_model, saved[0])


def test_a_damaged_file_is_refused(new_model, saved):
    (saved[0] / "model.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(ModelError, match=r"the weights of .* cannot be read: model\.safetensors: "):
        reload(new_model, saved[0])


def test_pickled_weights_are_refused_by_their_name(new_model, saved):
    (saved[0] / "model.safetensors").rename(saved[0] / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin.*needs model\.safetensors"):
        reload(new_model, saved[0])


def test_a_pickle_on_the_hub_is_not_downloaded_to_be_refused(new_model, monkeypatch):
    def fetched(name, file, **how):
        return file.endswith(".bin") and pytest.fail(f"fetched {file}")

    monkeypatch.setattr("transformers.utils.cached_file", fetched)
    monkeypatch.setattr("transformers.utils.has_file", lambda name, file, **how: file == "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"someone/old has only pickled weights \(pytorch_model\.bin\)"):
        reload(new_model, "someone/old")


def test_a_folder_that_is_not_there_is_refused_by_its_name(new_model, tmp_path):
    with pytest.raises(ModelError, match="nowhere"):
        reload(new_model, tmp_path / "nowhere")


def test_a_folder_without_weights_is_refused(new_model, tmp_path):
    with pytest.raises(ModelError, match=r"there is no model\.safetensors"):
        reload(new_model, tmp_path)


def test_sizes_that_do_not_go_together_are_refused(new_model):
    architecture = new_model().architecture
    architecture.n_head = 3
    with pytest.raises(ModelError, match=r"cannot build a gpt2 that predicts tokens: \S"):
        modeling.load(new_model(architecture=architecture))


def test_what_a_class_has_not_been_written_for_is_refused(new_model):
    sizes = {"vocab_size": 64, "emb_dim": 16, "n_layers": 1, "n_heads": 2, "max_position_embeddings": 32}
    architecture = XLMConfig(**sizes, causal=True, sinusoidal_embeddings=True)
    with pytest.raises(ModelError, match=r"sinusoidal_embeddings True: .* TensorFlow class for xlm"):
        modeling.load(new_model(architecture=architecture))


def test_heads_that_a_class_cannot_have_are_refused(new_model):
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 1}
    with pytest.raises(ModelError, match=r"head_dim 16: .* TensorFlow class for mistral supports only .* 8;"):
        modeling.load(new_model(architecture=MistralConfig(vocab_size=64, head_dim=16, **sizes)))


def test_an_architecture_without_a_tensorflow_class_is_refused(new_model):
    with pytest.raises(ModelError, match="llama: transformers has no TensorFlow class"):
        modeling.load(new_model(architecture=LlamaConfig()))


def test_a_class_that_does_not_predict_the_next_token_is_refused(new_model):
    sizes = {"d_model": 16, "d_embed": 16, "d_head": 8, "n_layer": 1, "n_head": 2, "d_inner": 16}
    architecture = TransfoXLConfig(vocab_size=64, cutoffs=[16, 32], div_val=2, **sizes)
    with pytest.raises(ModelError, match="no next-token loss"):
        modeling.load(new_model(architecture=architecture))


def test_a_model_with_a_padding_token_can_be_exported(new_model, tmp_path):
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 16}
    architecture = RobertaConfig(vocab_size=64, max_position_embeddings=64, is_decoder=True, **sizes)
    model, ids = modeling.load(new_model(architecture=architecture)), tf.constant([[5, 1, 7]])
    model.save(tmp_path)
    inputs = {"input_ids": ids, "attention_mask": tf.ones_like(ids), "token_type_ids": tf.zeros_like(ids)}
    exported = tf.saved_model.load(tmp_path).signatures["serving_default"](**inputs)
    np.testing.assert_allclose(exported["logits"], model(**inputs).logits, rtol=0, atol=1e-6)


def test_bf16_is_refused_where_the_class_fails_in_it(new_model):
    architecture = CTRLConfig(vocab_size=64, n_embd=16, n_layer=1, n_head=2, dff=16)
    with modeling.precision(True), pytest.raises(OptionError, match="bf16"):
        modeling.load(new_model(architecture=architecture))


def test_an_output_layer_of_its_own_is_refused_where_the_class_always_ties(new_model):
    architecture = new_model().architecture
    architecture.tie_word_embeddings = False
    with pytest.raises(ModelError, match="tie_word_embeddings"):
        modeling.load(replace(new_model(), architecture=architecture))


def test_new_weights_depend_on_the_seed_alone(new_model):
    first, again, other = (modeling.load(new_model(seed=seed)) for seed in (1, 1, 2))
    assert_equal(again, first.get_weights())
    assert not np.array_equal(other.get_weights()[0], first.get_weights()[0])


def test_the_global_settings_of_keras_come_back(new_model):
    before = tf_keras.mixed_precision.global_policy().name
    with modeling.precision(True):
        modeling.load(new_model())
    assert tf_keras.mixed_precision.global_policy().name == before
    assert not tf_keras.backend.experimental.is_tf_random_generator_enabled()


def test_float32_is_not_rounded_to_tensorfloat_32_on_a_gpu():
    rounds = tf.config.experimental.tensor_float_32_execution_enabled
    before = rounds()
    with modeling.precision(False):
        assert not rounds()
    assert rounds() == before


def test_a_saved_model_is_checked_against_what_was_to_be_written(new_model, tmp_path, monkeypatch):
    def damage(path, tensors, metadata):
        save_file({name: array + 1 for name, array in tensors.items()}, path, metadata=metadata)

    monkeypatch.setattr("clm_core.weights.write_tensors", damage)
    with pytest.raises(OutputError, match="not written correctly"):
        modeling.save(modeling.load(new_model()), tmp_path)
