"""Adapters in PyTorch: trained beside a base that stays as it is, and the same for peft."""

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from clm_core.adapters import new_adapter
from clm_core.adapters.defaults import TARGET_MODULES
from clm_core.adapters.merging import merged
from clm_core.backend import EvaluationJob, Model
from clm_core.config import EvaluateConfig, TrainConfig
from clm_core.errors import BackendError, ModelError
from clm_core.models.adapters.conv1d import MODEL_TYPES, is_conv1d
from clm_core.models.configurations import existing_model
from clm_core.testing.tiny import validation_blocks
from clm_core.weights import save
from clm_pt import adapters, modeling
from clm_pt.backend import PyTorchBackend
from clm_pt.training import train

peft = pytest.importorskip("peft")

LORA = {
    "lora_r": 3,
    "lora_alpha": 7,
    "lora_target_modules": ("c_attn", "mlp.c_proj"),
    "lora_modules_to_save": ("ln_f",),
}
STEPS = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}


@pytest.fixture
def job(new_job, new_model):
    job = new_job(model=new_model(dropout=0.1), lora_dropout=0.2, **LORA, **STEPS)
    train(job)
    return job


def logits(model: Model):
    job = EvaluationJob(model=model, blocks=validation_blocks(), config=EvaluateConfig(), report=print)
    return PyTorchBackend().logits(job)


def in_peft(folder):
    """What plain peft computes with a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.AutoPeftModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(torch.from_numpy(validation_blocks().astype(np.int64))).logits.numpy()


def test_only_the_adapter_is_written_and_the_base_stays_as_it_was(job):
    for folder in (job.model_dir, job.output_dir / "checkpoint-4"):
        assert not list(folder.glob("model*"))
        tensors = load_file(folder / "adapter_model.safetensors")
        assert len(tensors) == 2 * 2 * 2 + 2
        assert any(array.any() for name, array in tensors.items() if "lora_B" in name)
    assert existing_model(job.model_dir).name_or_path == job.model.name_or_path


def test_moments_are_those_of_the_adapter_by_the_names_in_its_file(job):
    tensors = load_file(job.output_dir / "checkpoint-4" / "optimizer.safetensors")
    in_file = load_file(job.model_dir / "adapter_model.safetensors")
    assert {name[2:] for name in tensors} == {name.removeprefix("base_model.model.") for name in in_file}


def test_plain_peft_opens_a_run_and_a_checkpoint_and_computes_the_same(job):
    for folder in (job.model_dir, job.output_dir / "checkpoint-2"):
        np.testing.assert_array_equal(in_peft(folder), logits(existing_model(folder)))
    assert (logits(existing_model(job.model_dir)) != logits(replace(job.model, adapter=None))).any()


def test_a_training_that_is_resumed_ends_with_the_same_numbers_bit_for_bit(job, new_job):
    again = new_job(model=replace(job.model, adapter=None), lora_dropout=0.2, **LORA, **STEPS)
    train(replace(again, resume_from=job.output_dir / "checkpoint-2"))
    for name in ("adapter_model.safetensors", "checkpoint-4/optimizer.safetensors"):
        one = (job.output_dir if "/" in name else job.model_dir) / name
        other = (again.output_dir if "/" in name else again.model_dir) / name
        assert one.read_bytes() == other.read_bytes()


def test_a_merged_model_computes_what_the_adapter_does(job, tmp_path):
    model = existing_model(job.model_dir)
    save(merged(model), model.architecture, tmp_path / "merged")
    np.testing.assert_allclose(logits(existing_model(tmp_path / "merged")), logits(model), atol=1e-5)


def test_a_model_with_an_adapter_is_saved_and_loaded_by_hand(job, tmp_path):
    modeling.save(modeling.load(job.model_dir), tmp_path / "by-hand")
    np.testing.assert_array_equal(logits(existing_model(tmp_path / "by-hand")), logits(existing_model(job.model_dir)))


@pytest.mark.parametrize("rank_stabilized", [False, True])
def test_an_adapter_that_peft_wrote_is_read(job, tmp_path, rank_stabilized):
    base = AutoModelForCausalLM.from_pretrained(job.model.name_or_path)
    settings = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=2,
        lora_alpha=5,
        target_modules=["c_fc", "h.1.attn.c_proj"],
        modules_to_save=["ln_1"],
        use_rslora=rank_stabilized,
        init_lora_weights=False,
        fan_in_fan_out=True,
    )
    peft.get_peft_model(base, settings).save_pretrained(tmp_path)
    np.testing.assert_array_equal(in_peft(tmp_path), logits(existing_model(tmp_path)))


def test_a_peft_that_cannot_be_used_is_said_in_one_line(job, monkeypatch):
    def refuse(*given):
        raise ImportError("Found an incompatible version of torchao.\nSee there")

    with monkeypatch.context() as patch:
        patch.setattr(peft, "inject_adapter_in_model", refuse)
        with pytest.raises(BackendError, match=r"be used here: Found an incompatible version of torchao: install"):
            modeling.load(job.model_dir)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(BackendError, match="which cannot be used here: import of peft halted"):
        modeling.load(job.model_dir)


def test_an_adapter_of_peft_that_is_more_than_lora_is_refused_by_the_field(job, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(job.model.name_or_path)
    settings = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["c_fc"], use_dora=True, fan_in_fan_out=True)
    peft.get_peft_model(base, settings).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="use_dora True makes it more than LoRA"):
        existing_model(tmp_path)


def test_the_default_layers_are_those_of_peft():
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as of_peft

    found = {kind: tuple(of_peft[kind]) for kind in TARGET_MODULES if kind in of_peft}
    assert found == {kind: TARGET_MODULES[kind] for kind in found}
    assert len(found) >= 20


def test_the_fields_that_peft_writes_are_known(tmp_path):
    peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["c_fc"], base_model_name_or_path="x").save_pretrained(
        tmp_path
    )
    from clm_core.models.adapters.configuration import read_configuration

    assert read_configuration(tmp_path / "adapter_config.json", folder="y").target_modules == ("c_fc",)


OF_NOTHING = {"name_or_path": "base", "revision": "main", "seed": 0}
SIZES = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 32, "num_key_value_heads": 2, "ffn_dim": 32, "word_embed_proj_dim": 16, "num_experts": 2}
SIZES |= {"num_layers": 2, "attention_types": [[["global", "local"], 1]]}


@pytest.mark.parametrize("kind", sorted(TARGET_MODULES))
def test_the_default_layers_are_there_and_so_is_each_other_one(kind):
    config = AutoConfig.for_model(kind, **SIZES, pad_token_id=0, bos_token_id=0, eos_token_id=0, is_decoder=True)
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config)
    for names in ((), ("all-linear",)):
        options = TrainConfig(lora_r=2, lora_target_modules=names)
        adapter = new_adapter(options, "base", "main", config)
        placement = adapters.placed(base, Model(**OF_NOTHING, architecture=config, adapter=adapter))
        assert placement.targets


def test_layers_that_keep_their_weight_as_in_and_out_are_known_for_each_causal_model():
    source = Path(transformers.__file__).parent / "models"
    kinds = {name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if (source / name.replace("-", "_")).is_dir()}
    kinds |= {"openai-gpt"}
    folders = {name: source / {"openai-gpt": "openai"}.get(name, name.replace("-", "_")) for name in kinds}
    found = {
        name
        for name, folder in folders.items()
        if any(" Conv1D(" in file.read_text(encoding="utf-8") for file in folder.glob("modeling_[!tf]*.py"))
    }
    assert found == MODEL_TYPES


@pytest.mark.parametrize("kind", sorted(MODEL_TYPES))
def test_layers_that_keep_their_weight_as_in_and_out_are_known_by_name(kind):
    config = AutoConfig.for_model(kind, **SIZES)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    dense = {name: module for name, module in model.named_modules() if isinstance(module, Conv1D | torch.nn.Linear)}
    assert {name for name in dense if is_conv1d(name, config)} == {
        name for name, module in dense.items() if isinstance(module, Conv1D)
    }
