"""Weights come back as they were written, whole, and from safetensors alone."""

import copy
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, T5Config, ViTConfig

from clm_core import sample
from clm_core.backend import Model
from clm_core.errors import ModelError, OutputError
from clm_core.models.configurations import existing_model
from clm_pt import modeling


@pytest.fixture
def saved(new_model, tmp_path):
    """A folder with a saved model, and the model."""
    model = modeling.load(new_model())
    modeling.save(model, tmp_path)
    return tmp_path, model


def edit(folder, change):
    """Apply `change` to the tensors of a saved model."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def assert_same(model, other):
    state = other.state_dict()
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor, state[name], err_msg=name)


def test_a_folder_is_enough_to_load_from_and_a_tokenizer_is_saved_beside(new_model, tmp_path):
    model = modeling.load(new_model())
    tokenizer = AutoTokenizer.from_pretrained(sample.TOKENIZER)
    modeling.save(model, str(tmp_path / "new" / "run"), tokenizer)
    assert AutoTokenizer.from_pretrained(tmp_path / "new" / "run").get_vocab() == tokenizer.get_vocab()
    assert_same(modeling.load(tmp_path / "new" / "run"), model)
    with pytest.raises(ModelError, match=r"no config\.json"):
        modeling.load(tmp_path)


def test_saved_weights_come_back_bit_for_bit(new_model, saved):
    folder, model = saved
    assert_same(modeling.load(new_model(folder, seed=8)), model)


def test_the_seed_decides_about_new_weights(new_model):
    one, again, other = (modeling.load(new_model(seed=seed)) for seed in (1, 1, 2))
    assert_same(one, again)
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)


def test_a_tied_head_is_written_once_and_is_tied_again(new_model, saved):
    folder, _ = saved
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model = modeling.load(new_model(folder))
    assert model.lm_head.weight is model.transformer.wte.weight


def test_a_head_of_its_own_comes_back_too(new_model, tmp_path):
    model = modeling.load(new_model(tie_word_embeddings=False))
    modeling.save(model, tmp_path)
    assert not torch.equal(model.lm_head.weight, model.transformer.wte.weight)
    assert_same(modeling.load(new_model(tmp_path, tie_word_embeddings=False, seed=8)), model)


def test_a_sharded_checkpoint_can_be_read(new_model, saved):
    folder, model = saved
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="10KB")
    assert not (folder / "model.safetensors").exists()
    assert_same(modeling.load(new_model(folder, seed=8)), model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_checkpoint_is_read_as_float32(new_model, saved, dtype):
    folder, model = saved
    edit(folder, lambda tensors: tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()}))
    assert_same(modeling.load(new_model(folder)), model.to(dtype).float())


def test_numbers_that_need_scales_are_refused(new_model, saved):
    name = "transformer.wte.weight"
    edit(saved[0], lambda tensors: tensors.update({name: tensors[name].to(torch.float8_e4m3fn)}))
    with pytest.raises(ModelError, match=r"transformer\.wte\.weight has type F8_E4M3"):
        modeling.load(new_model(saved[0]))


def test_a_method_of_quantisation_that_transformers_does_not_know_is_refused(new_model, saved):
    model = new_model(saved[0])
    model.architecture.quantization_config = {"quant_method": "other"}
    with pytest.raises(ModelError, match=r"quant_method 'other'.* backend pt"):
        modeling.load(model)


def test_a_file_with_the_output_layer_in_place_of_the_embeddings_is_refused_or_read(new_model, saved):
    folder, model = saved
    edit(folder, lambda tensors: tensors.update({"lm_head.weight": tensors.pop("transformer.wte.weight")}))
    if int(version("transformers").partition(".")[0]) >= 5:
        assert_same(modeling.load(new_model(folder)), model)
    else:
        with pytest.raises(ModelError, match=r"lack .*transformer\.wte\.weight"):
            modeling.load(new_model(folder))


def test_a_checkpoint_that_lacks_a_tensor_is_refused_by_its_name(new_model, saved):
    edit(saved[0], lambda tensors: tensors.pop("transformer.h.1.mlp.c_fc.weight"))
    with pytest.raises(ModelError, match=r"lack 1 of the model's tensors.*: transformer\.h\.1\.mlp\.c_fc\.weight$"):
        modeling.load(new_model(saved[0]))


def test_a_tensor_of_another_shape_is_refused(new_model, saved):
    edit(saved[0], lambda tensors: tensors.update({"transformer.wpe.weight": torch.zeros(8, 16)}))
    with pytest.raises(ModelError, match=r"another shape: transformer\.wpe\.weight$"):
        modeling.load(new_model(saved[0]))


MASK = torch.tril(torch.ones(1, 1, 32, 32))


def test_a_checkpoint_of_the_bare_transformer_with_its_buffers_can_be_read(new_model, saved):
    folder, model = saved
    tensors = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    bare |= {"h.0.attn.bias": MASK, "h.1.attn.masked_bias": torch.tensor(-1e4)}
    save_file(bare, folder / "model.safetensors", metadata={"format": "pt"})
    assert_same(modeling.load(new_model(folder)), model)


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_a_tensor_that_the_model_does_not_use_is_refused_by_its_name_unless_it_is_to_be_ignored(
    new_model, saved, prefix
):
    folder, model = saved
    tensors = load_file(folder / "model.safetensors")
    bare = {prefix + name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    extra = f"{prefix}h.0.attn.c_attn.lora_A.weight"
    save_file({**bare, extra: MASK}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"does not use: {extra};"):
        modeling.load(new_model(folder))
    assert_same(modeling.load(replace(new_model(folder), ignore_unused_weights=True)), model)


def test_layers_that_the_configuration_does_not_count_are_refused_in_shards_too(new_model, saved):
    folder, model = saved
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="10KB")
    with pytest.raises(ModelError, match=r"does not use: transformer\.h\.1\.attn\.c_attn\..* and \d more;"):
        modeling.load(new_model(folder, n_layer=1))


def test_a_head_that_differs_from_the_embeddings_is_refused_or_used_but_not_dropped(new_model, saved):
    folder, model = saved
    head = model.transformer.wte.weight.detach() + 1
    edit(folder, lambda tensors: tensors.update({"lm_head.weight": head.clone()}))
    if version("transformers").startswith("4."):  # It would tie them.
        with pytest.raises(ModelError, match=r"lm_head\.weight differs from transformer\.wte\.weight"):
            modeling.load(new_model(folder))
    else:
        assert torch.equal(modeling.load(new_model(folder)).lm_head.weight, head)


def test_another_architectures_checkpoint_is_refused(new_model, saved):
    save_file({"encoder.weight": torch.zeros(4, 4)}, saved[0] / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 29 of the model's tensors.*, \.\.\.$"):
        modeling.load(new_model(saved[0]))


@pytest.mark.parametrize("content", [b"", b"no tensors in here"])
def test_a_damaged_file_is_refused(new_model, saved, content):
    (saved[0] / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"the weights of .* cannot be read: model\.safetensors: "):
        modeling.load(new_model(saved[0]))


@pytest.mark.parametrize("file", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_pickled_weights_are_refused_with_the_way_out(new_model, saved, file):
    folder, model = saved
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / file)
    with pytest.raises(
        ModelError, match=rf"only pickled weights \({file}\).*it needs model\.safetensors, as save_pret"
    ):
        modeling.load(new_model(folder))


def test_nobody_is_asked_to_convert_a_pickle(new_model, monkeypatch):
    """The Hub's bot would be, over the network, if transformers were left to find out."""
    monkeypatch.setattr("transformers.utils.cached_file", lambda *args, **kwargs: None)
    monkeypatch.setattr("transformers.utils.has_file", lambda name, file, **kwargs: file == "pytorch_model.bin")
    monkeypatch.setattr(modeling.AutoModelForCausalLM, "from_pretrained", lambda *args, **kwargs: pytest.fail("asked"))
    with pytest.raises(ModelError, match="someone/old has only pickled weights"):
        modeling.load(new_model("someone/old"))


def test_a_folder_without_weights_is_refused(new_model, tmp_path):
    with pytest.raises(ModelError, match=r"there is no model\.safetensors in "):
        modeling.load(new_model(tmp_path))


@pytest.mark.parametrize("architecture", [ViTConfig(), T5Config()])
def test_what_predicts_no_next_token_is_refused(architecture):
    kind = architecture.model_type
    with pytest.raises(ModelError, match=f"cannot build a {kind} that predicts tokens: Unrecognized"):
        modeling.load(Model(name_or_path=None, revision="main", architecture=architecture, seed=0))


@pytest.mark.parametrize(
    "changes", [{"n_embd": 130, "n_head": 4}, {"n_head": 0}, {"n_embd": -16}, {"activation_function": "nonsense"}]
)
def test_sizes_that_cannot_be_built_are_refused_with_a_reason(new_model, changes):
    with pytest.raises(ModelError, match=r"cannot build a gpt2 that predicts tokens: \S"):
        modeling.load(new_model(**changes))


@pytest.mark.parametrize("name", ["transformer.wte.weight", "transformer.ln_f.bias"])
@pytest.mark.parametrize("harm", [lambda tensors, name: tensors.pop(name), lambda tensors, name: tensors[name].add_(1)])
def test_weights_that_were_not_written_well_are_noticed(new_model, tmp_path, monkeypatch, name, harm):
    model = modeling.load(new_model())
    write = model.save_pretrained

    def write_badly(folder):
        write(folder)
        edit(folder, lambda tensors: harm(tensors, name))

    monkeypatch.setattr(model, "save_pretrained", write_badly)
    with pytest.raises(OutputError, match=name):
        modeling.save(model, tmp_path)


def test_a_model_is_placed_on_the_cpu_where_there_is_no_accelerator(new_model, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    model = modeling.on_device(modeling.load(new_model()))
    assert model.device.type == "cpu"
    assert not model.training


def test_a_copy_of_the_embeddings_beside_them_is_no_hindrance_to_more_embeddings_or_is_said_to_be_one(saved):
    folder, model = saved
    edit(folder, lambda tensors: tensors.update({"lm_head.weight": tensors["transformer.wte.weight"].clone()}))
    rows = model.config.vocab_size + 3
    found = existing_model(folder)
    architecture = copy.deepcopy(found.architecture)
    architecture.vocab_size = rows
    larger = replace(found, architecture=architecture, vocabulary=rows)
    if version("transformers").startswith("5."):
        with pytest.raises(ModelError, match=r"an output layer beside the embeddings, .* save the model anew"):
            modeling.load(larger)
        modeling.save(modeling.load(found), folder)  # As the message says.
    loaded = modeling.load(larger)
    assert loaded.lm_head.weight is loaded.transformer.wte.weight
    assert len(loaded.lm_head.weight) == rows
