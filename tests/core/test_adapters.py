"""Adapters: where their tensors are, what they begin with, and their files."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clm_bigram import BigramBackend
from safetensors.numpy import load_file, save_file

from clm_core.adapters import Adapter, adapter_weights, find_adapter, first_adapter_weight, place, save_adapter
from clm_core.config import TrainConfig
from clm_core.errors import BackendError, ClmError, ModelError, OptionError
from clm_core.inputs import _base, check_type
from clm_core.testing import tiny

TIED = ("lm_head", "transformer.wte")
LINEAR = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.write_model(
        tmp_path_factory.mktemp("base"), tiny.tiny_gpt2(), tiny.first_weights(tiny.tiny_gpt2(), seed=3)
    )


def adapted(base, tmp_path, **options):
    return tiny.with_adapter(base, TrainConfig(**{"lora_r": 4, **options}), tmp_path)


def placed(model):
    shapes = tiny.shapes(model.architecture)
    linear = {name.removesuffix(".weight"): size for name, size in shapes.items() if name.endswith("weight")}
    linear = {name: size for name, size in linear.items() if name.endswith(LINEAR)}
    return place(model, linear, shapes, output="lm_head", tied=TIED)


def trained(model):
    """Other numbers for each tensor of an adapter."""
    shapes = placed(model).shapes
    return {name: np.full(shape, number + 1, np.float32) for number, (name, shape) in enumerate(shapes.items())}


@pytest.fixture
def written(base, tmp_path):
    model = adapted(base, tmp_path, lora_modules_to_save=("ln_f",), lora_alpha=8)
    save_adapter(trained(model), model, tmp_path / "adapter")
    return replace(model, adapter=replace(model.adapter, folder=str(tmp_path / "adapter")))


def change(model, **fields):
    file = Path(model.adapter.folder) / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_an_adapter_is_scaled_by_its_rank_or_by_the_root_of_it():
    plain = Adapter(
        r=4,
        alpha=6,
        dropout=0,
        use_rslora=False,
        target_modules=("c_attn",),
        modules_to_save=(),
        base="x",
        base_revision="main",
    )
    assert (plain.scale, replace(plain, use_rslora=True).scale) == (1.5, 3.0)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ((), ["c_attn", "c_attn"]),
        (("h.1.attn.c_proj",), ["c_proj"]),
        (("c_proj",), ["c_proj"] * 4),
        (("all-linear",), ["c_attn", "c_proj", "c_fc", "c_proj"] * 2),
    ],
)
def test_layers_are_named_as_peft_names_them(base, tmp_path, names, found):
    targets = placed(adapted(base, tmp_path, lora_target_modules=names)).targets
    assert [name.rpartition(".")[2] for name in targets] == found


def test_each_layer_has_two_matrices_and_a_module_that_is_saved_has_its_parameters(base, tmp_path):
    model = adapted(base, tmp_path, lora_modules_to_save=("ln_f",), lora_target_modules=("h.0.attn.c_attn",))
    assert placed(model).shapes == {
        "transformer.h.0.attn.c_attn.lora_A.weight": (4, 16),
        "transformer.h.0.attn.c_attn.lora_B.weight": (48, 4),
        "transformer.ln_f.weight": (16,),
        "transformer.ln_f.bias": (16,),
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"lora_target_modules": ("c_atn",)},
            "no dense layer of this name; it has c_attn, c_proj, c_fc; did you mean c_attn",
        ),
        (
            {"lora_target_modules": ("wpe",)},
            "wpe: it is no dense layer, as c_attn, c_proj, c_fc are; --lora-mod",
        ),
        ({"lora_target_modules": ("lm_head",)}, "lm_head shares its weight with transformer.wte, so"),
        (
            {"lora_target_modules": ("wte",)},
            "transformer.wte shares its weight with lm_head",
        ),
        (
            {"lora_modules_to_save": ("wte",)},
            "to_save wte: transformer.wte shares its weight with lm_head",
        ),
        ({"lora_modules_to_save": ("transformer",)}, "wte shares its weight with lm_head, so that an adapter cannot"),
        (
            {"lora_modules_to_save": ("zzz",)},
            "no such module; there are transformer, wte, wpe, h, attn, c_at",
        ),
        (
            {"lora_modules_to_save": ("c_attn",)},
            "is trained whole, by lora_modules_to_save c_attn: leave",
        ),
        ({"lora_modules_to_save": ("ln_g",)}, "there is no such module; did you mean ln_f"),
        ({"lora_modules_to_save": ("mlp", "h.0.mlp.c_fc")}, "h.0.mlp.c_fc is in transformer.h.0.mlp, and both"),
        ({"lora_modules_to_save": ("attn",)}, "h.0.attn.c_attn is in transformer.h.0.attn, and both names end so"),
        (
            {"lora_modules_to_save": ("mlp",), "lora_target_modules": ("c_fc",)},
            "c_fc is trained whole, by lora_modules_to_save mlp",
        ),
        (
            {"lora_modules_to_save": ("mlp", "0.attn", "1.attn"), "lora_target_modules": ("all-linear",)},
            "no dense layer left",
        ),
    ],
)
def test_what_an_adapter_cannot_be_for_is_an_error_that_says_why(base, tmp_path, options, said):
    with pytest.raises(OptionError) as error:
        placed(adapted(base, tmp_path, **options))
    assert said in str(error.value)


def test_what_all_linear_leaves_out_is_what_is_trained_whole(base, tmp_path):
    options = {"lora_target_modules": ("all-linear",), "lora_modules_to_save": ("mlp",)}
    assert not any("mlp" in name for name in placed(adapted(base, tmp_path, **options)).targets)


def test_a_new_adapter_adds_nothing_and_its_first_numbers_are_those_of_peft_by_name_and_seed():
    drawn = first_adapter_weight("one.lora_A.weight", (300, 100), seed=1)
    assert not first_adapter_weight("one.lora_B.weight", (9, 3), seed=1).any()
    assert abs(drawn).max() <= 0.1
    assert drawn.std() == pytest.approx(0.1 / 3**0.5, rel=0.01)
    np.testing.assert_array_equal(drawn, first_adapter_weight("one.lora_A.weight", (300, 100), seed=1))
    assert (drawn != first_adapter_weight("two.lora_A.weight", (300, 100), seed=1)).any()
    assert (drawn != first_adapter_weight("one.lora_A.weight", (300, 100), seed=2)).any()


def test_a_new_adapter_begins_what_is_trained_whole_with_the_weights_of_its_base(base, tmp_path):
    model = adapted(base, tmp_path, lora_modules_to_save=("ln_f",))
    assert adapter_weights(model, placed(model).shapes).keys() == {
        name for name in placed(model).shapes if "lora" in name
    }


def test_what_is_written_is_read_back_under_the_names_of_peft(written):
    read = adapter_weights(written, placed(written).shapes)
    in_file = load_file(f"{written.adapter.folder}/adapter_model.safetensors")
    assert {f"base_model.model.{name}" for name in read} == in_file.keys()
    for name, array in trained(written).items():
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"use_dora": True}, "use_dora True makes it more than LoRA"),
        ({"rank_pattern": {"c_attn": 2}}, "rank_pattern"),
        ({"layers_to_transform": 0}, "layers_to_transform 0"),
        ({"exclude_modules": ["h.0"]}, "exclude_modules"),
        ({"a_field_of_tomorrow": 1}, "a_field_of_tomorrow 1"),
        ({"bias": "all"}, "bias 'all' trains biases"),
        ({"init_lora_weights": "pissa"}, "changes the weights of the base"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"task_type": "SEQ_CLS"}, "task_type is 'SEQ_CLS'"),
        ({"target_modules": r".*\.c_attn"}, "must be a list of names"),
        ({"r": 2}, "r is 2, and this adapter has 4"),
        ({"lora_alpha": 16}, "alpha is 16, and this adapter has 8"),
        ({"lora_alpha": "16"}, "lora_alpha is '16', and must be a number"),
        ({"base_model_name_or_path": None}, "it is not known which model"),
        ({"use_rslora": "yes"}, "use_rslora is 'yes', and must be true or false"),
    ],
)
def test_a_field_that_changes_the_numbers_is_an_error_that_names_it(written, fields, said):
    change(written, **fields)
    with pytest.raises(ModelError) as error:
        adapter_weights(written, placed(written).shapes)
    assert said in str(error.value)


def test_an_adapter_of_an_adapter_is_an_error_that_says_to_merge(written):
    change(written, base_model_name_or_path=written.adapter.folder)
    with pytest.raises(ModelError, match=r"is an adapter itself: merge that one \(clm merge-adapter"):
        find_adapter(written.adapter.folder, "main")


def test_fields_that_peft_writes_and_that_change_nothing_are_accepted(written):
    change(written, peft_version="0.21.2", use_dora=False, rank_pattern={}, eva_config=None, megatron_core="x")
    assert adapter_weights(written, placed(written).shapes)


def with_tensors(model, edit):
    file = f"{model.adapter.folder}/adapter_model.safetensors"
    save_file(edit(load_file(file)), file)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda found: dict([*found.items()][1:]), "and the file lacks it"),
        (lambda found: {**found, "more": np.ones(1, np.float32)}, "no module named in adapter_config.json has: more"),
        (lambda found: {name: array[:1] for name, array in found.items()}, "and the file has"),
        (lambda found: {name: array.astype(np.int8) for name, array in found.items()}, "has type I8"),
        (lambda found: {name: array * np.nan for name, array in found.items()}, "the value nan"),
    ],
)
def test_each_tensor_of_a_file_is_used_and_each_that_is_needed_is_there(written, edit, said):
    with_tensors(written, edit)
    with pytest.raises(ClmError) as error:
        adapter_weights(written, placed(written).shapes)
    assert said in str(error.value)


def test_a_folder_without_the_weights_is_an_error_and_pickles_are_not_read(written):
    folder = written.adapter.folder
    shutil.move(f"{folder}/adapter_model.safetensors", f"{folder}/adapter_model.bin")
    with pytest.raises(ModelError, match=r"has no adapter_model.safetensors but adapter_model.bin, which can run code"):
        adapter_weights(written, placed(written).shapes)


@pytest.mark.parametrize("name", ["lora_alpha", "lora_dropout", "lora_modules_to_save", "use_rslora"])
def test_an_option_of_an_adapter_without_a_rank_has_no_effect_and_is_an_error(base, tmp_path, name):
    value = {"lora_alpha": 2, "lora_dropout": 0.5, "lora_modules_to_save": ("ln_f",), "use_rslora": True}[name]
    with pytest.raises(OptionError, match=f"{name} has no effect without lora_r"):
        adapted(base, tmp_path, lora_r=None, **{name: value})


def test_a_backend_without_adapters_says_how_to_do_without_one(written, monkeypatch):
    monkeypatch.setattr(BigramBackend, "unsupported", {"lora_r": "it counts"})
    with pytest.raises(ModelError, match=r"not support lora_r: it counts; clm merge-adapter .*adapter --output-dir"):
        check_type(written, BigramBackend())


def test_what_a_backend_needs_for_an_adapter_is_named_with_the_command_that_installs_it(written, monkeypatch):
    monkeypatch.setattr(BigramBackend, "unsupported", {})
    monkeypatch.setattr(BigramBackend, "needs_for_adapters", ("no-such-library>=2", "numpy"), raising=False)
    with pytest.raises(BackendError, match=r"needs no-such-library>=2 \(not installed\): .*pip install .*\[lora\]"):
        check_type(written, BigramBackend())
    check_type(replace(written, adapter=None), BigramBackend())


def test_an_adapter_does_not_go_on_beside_another_folder_of_the_same_name(written, tmp_path):
    other = tiny.write_model(
        tmp_path / "other" / Path(written.adapter.base).name,
        tiny.tiny_gpt2(),
        tiny.first_weights(tiny.tiny_gpt2(), seed=4),
    )
    config = TrainConfig(lora_r=4, model_name_or_path=other.name_or_path)
    with pytest.raises(OptionError, match=rf"is one of {written.adapter.base}: leave this option out"):
        _base(replace(other, adapter=None), config, Path(written.adapter.folder))
