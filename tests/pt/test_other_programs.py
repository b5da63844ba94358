"""What a run leaves opens in plain transformers, and says of itself what the model is and not how it was trained."""

import json

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
    pipeline,
)

import clm_core as clm
from clm_core import sample
from clm_pt.modeling import load, save
from clm_pt.trainer import ScheduledTrainer
from clm_pt.training import train

TEXT = "Why is the sky blue? Because the air scatters blue light more than red light. " * 9


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    file = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    file.write_text("\n\n".join([TEXT] * 20), encoding="utf-8")
    return file


@pytest.fixture
def trained(corpus, tmp_path, monkeypatch):
    """Train for two steps, and return the folder of the run."""
    monkeypatch.setenv("CLM_CACHE", str(tmp_path / "cache"))

    def run(name="run", **options):
        small = {"block_size": 16, "max_steps": 2, "eval_strategy": "no", "tokenizer_name": "sample"}
        clm.train(backend="pt", train_file=corpus, output_dir=tmp_path / name, **(small | options))
        return tmp_path / name

    return run


@pytest.fixture
def gpt2(trained):
    return trained(model_type="gpt2", config_overrides="n_layer=1,n_embd=16,n_head=2,n_positions=32")


def settings(folder, name="generation_config.json"):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_a_pipeline_that_is_told_nothing_stays_within_the_positions(gpt2):
    generate = pipeline("text-generation", str(gpt2))
    for seed in range(30):
        torch.manual_seed(seed)
        text = generate("Good question!", return_full_text=True)[0]["generated_text"]
        assert text.startswith("Good question!")


def test_a_text_that_is_cut_off_fits_the_model(gpt2):
    tokenizer = AutoTokenizer.from_pretrained(gpt2)
    inputs = tokenizer(TEXT, truncation=True, return_tensors="pt")
    assert inputs["input_ids"].shape == (1, 32)
    assert AutoModelForCausalLM.from_pretrained(gpt2)(**inputs).logits.shape == (1, 32, 2048)


def test_prompts_of_different_lengths_are_continued_in_one_batch_as_each_alone(gpt2):
    generate = pipeline("text-generation", str(gpt2))
    prompts, settings = ["Why?", "Why is the sky blue? Because"], {"max_new_tokens": 8, "do_sample": False}
    alone = [generate(prompt, **settings)[0] for prompt in prompts]
    assert [found[0] for found in generate(prompts, batch_size=2, **settings)] == alone


def test_a_plain_trainer_goes_on_with_the_model_and_its_tokenizer(gpt2, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(gpt2)
    texts = [{"input_ids": ids} for ids in tokenizer(["Why is the sky blue?", "Why?"])["input_ids"]]
    arguments = TrainingArguments(str(tmp_path / "plain"), max_steps=1, report_to=[], use_cpu=True, save_strategy="no")
    trainer = Trainer(
        model=AutoModelForCausalLM.from_pretrained(gpt2),
        args=arguments,
        train_dataset=texts,
        processing_class=tokenizer,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    )
    assert 0 < trainer.train().training_loss < 10


def test_a_model_that_rotates_is_given_no_end(trained):
    sizes = "hidden_size=16,intermediate_size=16,num_attention_heads=2,num_key_value_heads=2,num_hidden_layers=1"
    run = trained(model_type="llama", config_overrides=f"{sizes},head_dim=8,max_position_embeddings=32")
    assert "max_length" not in settings(run)
    assert settings(run, "tokenizer_config.json")["model_max_length"] == 32


CONTRADICTING = {"temperature": 0.5, "do_sample": False, "max_length": 24}
"""What many models say, and transformers 4 refuses to save."""


@pytest.mark.parametrize("said", [{"max_length": 24}, {"max_new_tokens": 5}, CONTRADICTING], ids=str)
def test_the_settings_of_a_base_model_stay(gpt2, trained, said):
    (gpt2 / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 5], **said}))
    again = settings(trained("again", model_name_or_path=gpt2, tokenizer_name=None))
    for name in ("max_length", "max_new_tokens", "temperature"):
        assert again.get(name) == said.get(name)
    assert again["eos_token_id"] == [0, 5]


def test_no_file_says_how_it_was_loaded_and_the_last_checkpoint_is_the_model(gpt2):
    for folder in (gpt2, gpt2 / "checkpoint-2"):
        assert not {"is_local", "local_files_only", "name_or_path"} & settings(folder, "tokenizer_config.json").keys()
        assert "_from_model_config" not in settings(folder)
        assert "_name_or_path" not in settings(folder, "config.json")
        assert str(sample.TOKENIZER) not in "".join(path.read_text() for path in folder.glob("*.json"))
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        assert settings(gpt2, name) == settings(gpt2 / "checkpoint-2", name)


@pytest.mark.parametrize("use_cache", [True, False])
def test_the_cache_is_used_as_the_model_says_and_not_as_it_was_trained(new_job, new_model, use_cache):
    job = new_job(model=new_model(use_cache=use_cache), max_steps=1, save_strategy="steps", save_steps=1)
    train(job)
    assert settings(job.model_dir, "config.json")["use_cache"] is use_cache
    assert settings(job.output_dir / "checkpoint-1", "config.json")["use_cache"] is use_cache


def test_what_did_not_fit_in_memory_leaves_no_setting_behind(trained, monkeypatch):
    attempts, whole = [], ScheduledTrainer.report_step

    def narrow(self):
        attempts.append(self.job.schedule.share_size)
        if attempts[-1] > 4:
            raise torch.OutOfMemoryError
        whole(self)

    monkeypatch.setattr(ScheduledTrainer, "report_step", narrow)
    sizes = "n_layer=1,n_embd=16,n_head=2,n_positions=32"
    run = trained(model_type="gpt2", config_overrides=sizes, auto_find_batch_size=True, per_device_train_batch_size=8)
    assert attempts == [8, 4, 4]
    assert settings(run, "config.json")["use_cache"] is True


def test_a_model_that_generates_nothing_is_saved_too(gpt2, tmp_path):
    model = load(gpt2)
    model.generation_config, model.can_generate = None, lambda: False
    save(model, tmp_path / "saved")
    assert (tmp_path / "saved" / "model.safetensors").is_file()
    assert not (tmp_path / "saved" / "generation_config.json").exists()
