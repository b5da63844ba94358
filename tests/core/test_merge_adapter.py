"""A whole model from an adapter and its base: the numbers, and what does not belong together."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.waiting import wait_until

import clm_core
from clm_core import sample
from clm_core.adapters import save_adapter
from clm_core.adapters.merging import merged
from clm_core.backend import Adapter
from clm_core.commands.first_look import look
from clm_core.config import TrainConfig
from clm_core.errors import ClmError, ModelError, OptionError, OutputError
from clm_core.testing import tiny

LAYER = "transformer.h.1.attn.c_attn"
SETTINGS = {"r": 2, "alpha": 6, "dropout": 0.0, "use_rslora": False, "base_revision": "main"}

ENDLESS = """
import pathlib, sys, time, clm_core
from clm_core.commands import merge_adapter
begun, adapter, folder = sys.argv[1:]
merge_adapter.save = lambda *given, **named: (pathlib.Path(begun).mkdir(), time.sleep(60))
clm_core.merge_adapter(adapter, output_dir=folder)
"""
"""A merge that says when it has begun to write, and does not end."""


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def adapter_of(base, folder, weights, **fields):
    """An adapter that was written into a folder beside a tokenizer, as a model."""
    fields = {"target_modules": (LAYER,), "modules_to_save": (), **SETTINGS, **fields}
    adapter = Adapter(base=str(base.name_or_path), folder=str(folder), **fields)
    model = replace(base, adapter=adapter)
    shutil.copytree(sample.TOKENIZER, folder)
    save_adapter(weights, model, folder)
    return model


def beside(layer, ins, outs):
    return {f"{layer}.lora_A.weight": numbers(2, ins), f"{layer}.lora_B.weight": numbers(outs, 2, seed=1)}


@pytest.fixture
def base(tmp_path):
    architecture = tiny.tiny_gpt2()
    return tiny.write_model(tmp_path / "base", architecture, tiny.first_weights(architecture, seed=1))


@pytest.fixture
def model(base, tmp_path):
    return adapter_of(base, tmp_path / "adapter", beside(LAYER, 16, 48))


def test_what_an_adapter_adds_is_added_to_the_weight_of_its_layer_and_to_no_other(model):
    before, after = load_file(Path(model.name_or_path) / "model.safetensors"), merged(model)
    assert before.keys() == after.keys()
    assert [name for name in before if (before[name] != after[name]).any()] == [f"{LAYER}.weight"]
    added = 3.0 * (numbers(48, 2, seed=1) @ numbers(2, 16))
    np.testing.assert_allclose(after[f"{LAYER}.weight"], before[f"{LAYER}.weight"] + added.T, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("prefix", ["model.", ""])
def test_a_linear_layer_keeps_its_weight_as_out_and_in_whatever_its_files_call_it(tmp_path, prefix):
    from transformers import LlamaConfig

    weights = {f"{prefix}layers.0.self_attn.q_proj.weight": numbers(4, 4, seed=5)}
    base = tiny.write_model(tmp_path / "base", LlamaConfig(hidden_size=4, num_attention_heads=2), weights)
    layer = "model.layers.0.self_attn.q_proj"
    model = adapter_of(base, tmp_path / "adapter", beside(layer, 4, 4), target_modules=("q_proj",), use_rslora=True)
    (after,) = merged(model).values()
    np.testing.assert_allclose(
        after, numbers(4, 4, seed=5) + 6 / 2**0.5 * numbers(4, 2, seed=1) @ numbers(2, 4), rtol=1e-5
    )


def test_what_is_saved_whole_takes_the_place_of_the_weight(base, tmp_path):
    whole = {"transformer.ln_f.weight": numbers(16), "transformer.ln_f.bias": numbers(16, seed=1)}
    model = adapter_of(base, tmp_path / "adapter", beside(LAYER, 16, 48) | whole, modules_to_save=("ln_f",))
    after = merged(model)
    for name, array in whole.items():
        np.testing.assert_array_equal(after[name], array)


@pytest.mark.parametrize(
    ("weights", "fields", "said"),
    [
        (beside("transformer.h.7.attn.c_attn", 16, 48), {}, "there is no transformer.h.7.attn.c_attn.weight in it"),
        (beside(LAYER, 48, 16), {}, "is of (16, 48), and the adapter has (2, 48) and (16, 2)"),
        ({f"{LAYER}.lora_A.weight": numbers(2, 16)}, {}, "the adapter has (2, 16) and (0, 0)"),
        (beside(LAYER, 16, 48), {"target_modules": ("c_attn",)}, "nothing in the adapter for transformer.h.0"),
        ({"transformer.wte.weight": numbers(64, 16)}, {"modules_to_save": ("wte",)}, "of the embeddings and of"),
        ({"transformer.ln_f.bias": numbers(3)}, {"modules_to_save": ("ln_f",)}, "(16,), and the adapter has (3,)"),
    ],
)
def test_an_adapter_of_another_model_is_an_error_that_names_the_tensor(base, tmp_path, weights, fields, said):
    with pytest.raises(ModelError) as error:
        merged(adapter_of(base, tmp_path / "adapter", weights, **fields))
    assert said in str(error.value)


def test_the_merged_model_is_a_folder_of_transformers_with_its_tokenizer(model, tmp_path):
    result = clm_core.merge_adapter(model.adapter.folder, output_dir=tmp_path / "new" / "whole")
    assert (result.base, result.tensors) == (model.name_or_path, 28)
    written = load_file(result.folder / "model.safetensors")
    np.testing.assert_array_equal(written[f"{LAYER}.weight"], merged(model)[f"{LAYER}.weight"])
    assert {"config.json", "generation_config.json", "tokenizer.json"} <= {
        path.name for path in result.folder.iterdir()
    }
    assert not list(result.folder.glob("adapter*"))
    assert [path.name for path in result.folder.parent.iterdir()] == ["whole"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"resize_embeddings": True},
            r"new embeddings first, without lora_r, .*give the folder of that as --model",
        ),
        ({"config_overrides": "rope_theta=5"}, r"write these fields into config.json in a copy of the model, and give"),
    ],
)
def test_how_to_change_a_model_before_it_gets_an_adapter_is_said(base, options, says):
    with pytest.raises(OptionError, match=says):
        look(TrainConfig(text_column="title", model_name_or_path=base.name_or_path, lora_r=2, **options))


def test_what_cannot_be_merged_is_an_error_and_leaves_nothing(model, tmp_path):
    folder = Path(model.adapter.folder)
    with pytest.raises(OutputError, match="is there already"):
        clm_core.merge_adapter(folder, output_dir=tmp_path)
    with pytest.raises(OptionError, match="is a whole model"):
        clm_core.merge_adapter(model.name_or_path, output_dir=tmp_path / "new")
    with pytest.raises(OptionError, match="give the folder to write the model to"):
        clm_core.merge_adapter(folder)
    with pytest.raises(ModelError, match=r"there is no folder .*none"):
        clm_core.merge_adapter(tmp_path / "none", output_dir=tmp_path / "new")
    before = sorted(tmp_path.iterdir())
    save_file({}, folder / "adapter_model.safetensors")
    with pytest.raises(ClmError, match="nothing in the adapter for"):
        clm_core.merge_adapter(folder, output_dir=tmp_path / "new")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("place", "says"),
    [("file/new", "new cannot be written: .*file is a file"), ("link", "is a link to nowhere, which is not there")],
)
def test_a_folder_that_cannot_be_made_is_an_error_before_anything_is_merged(model, tmp_path, place, says):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(OutputError, match=says):
        clm_core.merge_adapter(model.adapter.folder, output_dir=tmp_path / place)


def test_the_merged_model_generates_as_the_adapter_says_though_it_contradicts_itself(model, tmp_path):
    said = '{"temperature": 0.5, "do_sample": false}'
    (Path(model.adapter.folder) / "generation_config.json").write_text(said)
    result = clm_core.merge_adapter(model.adapter.folder, output_dir=tmp_path / "whole")
    assert '"temperature": 0.5' in (result.folder / "generation_config.json").read_text()


def test_what_a_killed_merge_left_is_removed_by_the_next_one_and_what_a_live_one_writes_stays(model, tmp_path):
    begun, arguments = tmp_path / "begun", (model.adapter.folder, str(tmp_path / "never"))
    with subprocess.Popen([sys.executable, "-c", ENDLESS, str(begun), *arguments]) as process:
        try:
            wait_until(begun.exists)
            (left,) = tmp_path.glob(".merged-*")
            clm_core.merge_adapter(model.adapter.folder, output_dir=tmp_path / "first")
            assert left.is_dir()
        finally:
            process.kill()
    assert left.is_dir()
    (tmp_path / ".merged-mine").mkdir()
    clm_core.merge_adapter(model.adapter.folder, output_dir=tmp_path / "second")
    assert [path.name for path in tmp_path.glob(".merged-*")] == [".merged-mine"]


def test_an_adapter_whose_base_is_not_at_its_place_says_so_and_what_to_do(model):
    base = Path(model.name_or_path)
    base.rename(base.with_name("moved"))
    with pytest.raises(ModelError, match=r"is an adapter of .*base, and there is no such folder: .*ln -s NEW-PLACE"):
        clm_core.merge_adapter(model.adapter.folder, output_dir=base.with_name("new"))
    base.symlink_to("moved")
    assert clm_core.merge_adapter(model.adapter.folder, output_dir=base.with_name("new")).tensors == 28


@pytest.mark.parametrize("named", ["run", "run/checkpoint-2", "auto"])
def test_an_adapter_that_resumes_says_so_too(model, named, monkeypatch):
    monkeypatch.chdir(Path(model.name_or_path).parent)
    Path("run").mkdir()
    Path(model.adapter.folder).rename("run/checkpoint-2")
    Path("base").rename("moved")
    for name in (model.name_or_path, "base", "moved"):
        config = TrainConfig(
            text_column="title", model_name_or_path=name, lora_r=2, resume_from_checkpoint=named, output_dir="run"
        )
        with pytest.raises(ModelError, match=r"^run/checkpoint-2 is an adapter of .*base, and there .*ln -s NEW-PLACE"):
            look(config)
    Path("base").symlink_to("moved")
    look(replace(config, model_name_or_path="base"))
