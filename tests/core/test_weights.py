"""Weights of PyTorch's layout, read and written without any framework."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file, save_file
from transformers import GenerationConfig, GPT2Config, ViTConfig

from clm_core import weights
from clm_core.backend import Model
from clm_core.errors import ModelError, OutputError
from clm_core.models.first_weights import first_weight

EMBEDDINGS = "transformer.wte.weight"
SHAPES = {EMBEDDINGS: (6, 4), "transformer.h.0.attn.c_attn.bias": (12,), "transformer.h.0.ln_1.weight": (4,)}
ARRAYS = {name: np.random.default_rng(0).normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


@pytest.fixture
def folder(tmp_path):
    weights.save(ARRAYS, GPT2Config(), tmp_path / "model")
    return tmp_path / "model"


def load(folder, shapes=SHAPES, architecture=None, **changes):
    name = folder and str(folder)
    model = Model(name_or_path=name, revision="main", architecture=architecture or GPT2Config(), seed=3, **changes)
    return weights.load(model, shapes, input_embeddings=EMBEDDINGS, prefix="transformer.")


def edit(folder, change, metadata=None):
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata=metadata)


def replace_type(folder, old, new):
    """Give tensors of a file a type that NumPy does not have, so that it cannot write it."""
    file = folder / "model.safetensors"
    content = file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = content[8:end].replace(old, new)
    file.write_bytes(len(header).to_bytes(8, "little") + header + content[end:])


def assert_same(found, expected=ARRAYS):
    assert list(found) == list(SHAPES)
    for name, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected[name])


def test_what_was_saved_is_loaded_and_the_files_say_what_other_programs_need(folder):
    assert_same(load(folder))
    config = json.loads((folder / "config.json").read_text())
    assert (config["architectures"], config["dtype"]) == (["GPT2LMHeadModel"], "float32")
    assert b'"format":"pt"' in (folder / "model.safetensors").read_bytes()
    assert GenerationConfig.from_pretrained(folder).eos_token_id == 50256


@given(arrays(np.float32, st.lists(st.integers(0, 4), max_size=3).map(tuple)), st.booleans())
def test_any_array_comes_back_bit_for_bit_however_it_lies_in_memory(tmp_path_factory, array, transposed):
    array, file = array.T if transposed else array, tmp_path_factory.mktemp("weights") / "model.safetensors"
    weights.write_weights({"w": array}, file)
    assert (load_file(file)["w"].shape, load_file(file)["w"].tobytes()) == (array.shape, array.tobytes())


def test_new_weights_are_those_that_every_backend_draws():
    drawn = {name: first_weight(name, shape, GPT2Config(), seed=3) for name, shape in SHAPES.items()}
    assert_same(load(None), drawn)
    with pytest.raises(ModelError, match=r"model type vit: .*wte\.weight is not known .*: start from a checkpoint"):
        load(None, architecture=ViTConfig())


def test_a_file_of_the_bare_model_with_its_buffers_can_be_read(folder):
    buffers = {"h.0.attn.bias": np.tril(np.ones((1, 1, 8, 8), np.uint8)), "lm_head.weight": ARRAYS[EMBEDDINGS]}
    edit(folder, lambda tensors: {name.removeprefix("transformer."): tensors[name] for name in tensors} | buffers)
    assert_same(load(folder))


def test_shards_can_be_read_and_one_that_is_not_there_is_named(folder):
    (folder / "model.safetensors").unlink()
    where = {name: f"model-{number}.safetensors" for number, name in enumerate(ARRAYS)}
    for name, shard in where.items():
        save_file({name: ARRAYS[name]}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    assert_same(load(folder))
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(ModelError, match=r"index\.json names files that do not exist: model-1\.safetensors$"):
        load(folder)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floating_point_numbers_are_read_as_float32(folder, dtype):
    edit(folder, lambda tensors: {name: array.astype(dtype) for name, array in tensors.items()})
    assert_same(load(folder), {name: array.astype(dtype).astype(np.float32) for name, array in ARRAYS.items()})


def test_bfloat16_is_read_without_a_framework_that_has_it(folder):
    halves = {name: array.view(np.uint32) >> 16 for name, array in ARRAYS.items()}
    edit(folder, lambda tensors: {name: array.astype(np.uint16) for name, array in halves.items()})
    replace_type(folder, b'"U16"', b'"BF16"')
    assert_same(load(folder), {name: (array << 16).view(np.float32) for name, array in halves.items()})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: {**tensors, EMBEDDINGS: np.ones((6, 3), np.float32)}, f"in another shape: {EMBEDDINGS}$"),
        (lambda tensors: {EMBEDDINGS: tensors[EMBEDDINGS]}, r"lack 2 of .*: transformer\.h\.0\.attn\.c_attn\.bias, "),
        (lambda tensors: {**tensors, EMBEDDINGS: np.ones((6, 4), np.int8)}, f"{EMBEDDINGS} has type I8"),
        (lambda tensors: {**tensors, "h.1.ln_1.bias": np.ones(4)}, r"does not use: h\.1\.ln_1\.bias; .*--ignore-unus"),
        (lambda tensors: {**tensors, "lm_head.weight": np.ones((6, 4))}, r"lm_head\.weight differs from the input"),
    ],
)
def test_tensors_that_make_another_model_are_refused_by_name(folder, change, said):
    edit(folder, change)
    with pytest.raises(ModelError, match=said):
        load(folder)


def test_numbers_that_numpy_does_not_have_are_refused_by_their_type(folder):
    edit(folder, lambda tensors: {**tensors, "lm_head.weight": np.ones((6, 4), np.uint8)})
    replace_type(folder, b'"U8"', b'"F8_E4M3"')
    with pytest.raises(ModelError, match=r"cannot be read: model\.safetensors: lm_head\.weight has type F8_E4M3"):
        load(folder)


def test_a_tensor_too_many_can_be_ignored(folder):
    edit(folder, lambda tensors: {**tensors, "h.1.ln_1.bias": np.ones(4)})
    assert_same(load(folder, ignore_unused_weights=True))


def test_quantized_weights_are_refused(folder):
    with pytest.raises(ModelError, match=r"'gptq'.*, which this backend cannot read"):
        load(folder, architecture=GPT2Config(quantization_config={"quant_method": "gptq"}))


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("model.safetensors", b"", r"model\.safetensors: .*header"),
        ("model.safetensors", b"\x80\x04 a pickle under another name", r"model\.safetensors: .*header"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS: `git lfs pull`"),
        ("model.safetensors.index.json", b"{", r"index\.json: Expecting"),
        ("model.safetensors.index.json", b"[]", r"index\.json: it has no weight_map"),
        ("model.safetensors.index.json", b'{"weight_map": null}', r"index\.json: it has no weight_map"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong_with_it(folder, file, content, reason):
    (folder / "model.safetensors").unlink()
    (folder / file).write_bytes(content)
    with pytest.raises(ModelError, match=f"^the weights of .*model cannot be read: .*{reason}"):
        load(folder)


def test_a_file_that_ends_too_early_is_refused(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"cannot be read: model\.safetensors: "):
        load(folder)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_a_pickle_is_refused_by_its_name_and_not_read(folder, file, monkeypatch):
    (folder / "model.safetensors").rename(folder / file)
    monkeypatch.setattr(pickle, "Unpickler", lambda *args, **kwargs: pytest.fail("read"))
    with pytest.raises(ModelError, match=rf"only pickled weights \({file}\).*: it needs model\.safetensors, as save"):
        load(folder)


def test_a_pickle_on_the_hub_is_not_downloaded_to_be_refused(monkeypatch):
    monkeypatch.setattr(
        "transformers.utils.cached_file", lambda name, file, **how: file.endswith(".bin") and pytest.fail(file)
    )
    monkeypatch.setattr("transformers.utils.has_file", lambda name, file, **how: file == "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"^someone/old has only pickled weights \(pytorch_model\.bin\)"):
        load("someone/old")


@pytest.mark.parametrize("file", ["tf_model.h5", "flax_model.msgpack"])
def test_weights_in_the_layout_of_another_framework_are_refused_by_their_name(folder, file):
    edit(folder, lambda tensors: tensors, metadata={"format": "tf"})
    with pytest.raises(ModelError, match=r"only in another framework's layout \(model\.safetensors\): it needs"):
        load(folder)
    (folder / "model.safetensors").rename(folder / file)
    with pytest.raises(ModelError, match=rf"only in another framework's layout \({file}\): it needs model\.safet"):
        load(folder)


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"there is no model\.safetensors in "):
        load(tmp_path)


def test_what_is_written_is_read_back(tmp_path, monkeypatch):
    def damage(path, tensors, metadata):
        save_file({name: array + 1 for name, array in tensors.items()}, path, metadata=metadata)

    monkeypatch.setattr("clm_core.weights.write_tensors", damage)
    with pytest.raises(OutputError, match=rf"not written correctly \(first in {EMBEDDINGS}\)"):
        weights.save(ARRAYS, GPT2Config(), tmp_path)


def test_what_transformers_could_not_open_again_is_not_written(tmp_path):
    with pytest.raises(ModelError, match="vit: transformers has no causal language model"):
        weights.save(ARRAYS, ViTConfig(), tmp_path)
    assert list(tmp_path.iterdir()) == []
