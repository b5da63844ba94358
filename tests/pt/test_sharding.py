"""What FSDP2 cannot cut up is an error that names it, before anything is trained."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config

from clm_core.errors import OptionError
from clm_core.testing.tiny import tiny_model
from clm_pt.backend import PyTorchOptions
from clm_pt.processes import together
from clm_pt.sharding import check_can_be_sharded, check_memory
from clm_pt.training import create_trainer, train

TINY = {"vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 8}


@pytest.fixture
def model():
    config = AutoConfig.for_model("opt", **TINY, word_embed_proj_dim=8, max_position_embeddings=8, layerdrop=0.0)
    return AutoModelForCausalLM.from_config(config)


def test_a_tensor_of_two_blocks_is_refused_by_its_names(model):
    first, second = model.model.decoder.layers
    second.fc1.weight = first.fc1.weight
    with pytest.raises(OptionError, match=r"type opt .*layers\.0\.fc1\.weight and .*layers\.1\.fc1\.weight are one"):
        check_can_be_sharded(model)


def test_a_model_that_the_processes_of_a_machine_cannot_load_is_refused_before_it_is_loaded(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    check_memory(tiny_model(None))
    huge = GPT2Config(n_embd=2**15, n_layer=96, n_head=128)
    with pytest.raises(OptionError, match=r"8 of [\d.,]+ [GT]B need more .*: start fewer of them"):
        check_memory(replace(tiny_model(None), architecture=huge))


def test_experts_that_a_device_may_leave_out_are_refused_by_their_name(model):
    model.model.decoder.layers[1].experts = torch.nn.ModuleList([torch.nn.Linear(8, 8)])
    with pytest.raises(OptionError, match=r"leave out some of model\.decoder\.layers\.1\.experts"):
        check_can_be_sharded(model)


def test_layers_that_a_device_may_leave_out_are_refused_by_the_field(model):
    model.config.layerdrop = 0.1
    with pytest.raises(OptionError, match=r"layerdrop 0\.1 leaves out other layers"):
        check_can_be_sharded(model)


def test_a_tensor_of_another_type_is_refused_by_its_name(model):
    model.model.decoder.layers[0].fc2.bfloat16()
    with pytest.raises(OptionError, match=r"layers\.0\.fc2\.weight is torch\.bfloat16"):
        check_can_be_sharded(model)


def test_fsdp_of_one_process_trains_as_without_it(new_job, new_model):
    def weights(**options):
        job = new_job(max_steps=3, model=new_model(tie_word_embeddings=False), pt=PyTorchOptions(**options))
        train(job)
        return (job.model_dir / "model.safetensors").read_bytes()

    assert weights(fsdp=True) == weights()


def test_a_sharded_model_has_a_part_of_each_block_after_an_evaluation(new_job, blocks):
    with together("train"):
        trainer = create_trainer(new_job(validation=blocks[:3], eval_strategy="epoch", pt=PyTorchOptions(fsdp=True)))
        trainer.evaluate_if_due()
        assert {type(parameter).__name__ for parameter in trainer.model.parameters()} == {"DTensor"}


def test_the_guide_shards_nothing(new_job):
    with pytest.raises(OptionError, match="pt guide and pt fsdp cannot be combined"):
        create_trainer(new_job(pt=PyTorchOptions(fsdp=True, guide=True)))
