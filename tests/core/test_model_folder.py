"""The folder of a model fits it: no more tokens than it has places, and nothing of the machine that wrote it."""

import json

import pytest
from transformers import CONFIG_MAPPING, AutoTokenizer, GPT2Config, LlamaConfig, RobertaConfig

from clm_core.config import TrainConfig
from clm_core.data.tokenization import digest_tokenizer, encoder
from clm_core.models.architectures import position_table_size
from clm_core.models.configurations import new_architecture
from clm_core.models.model_folder import complete

GPT2, LLAMA = GPT2Config(n_positions=32), LlamaConfig(max_position_embeddings=32)


@pytest.fixture
def completed(tokenizer, tmp_path):
    """Complete a folder with these settings of generate, and return what a file in it says then."""

    def run(architecture, generation, name="generation_config.json"):
        architecture.save_pretrained(tmp_path)
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
        complete(tmp_path, tokenizer, architecture)
        return json.loads((tmp_path / name).read_text())

    return run


@pytest.mark.parametrize(
    ("kind", "places"),
    [("gpt2", 1024), ("gptj", 2048), ("ctrl", 256), ("roberta", 510), ("xglm", 2048), ("opt", 2048)]
    + [(name, None) for name in ("llama", "gpt_neox", "falcon", "modernbert-decoder", "gemma3", "bloom", "mamba")]
    + [(name, None) for name in ("jamba", "rwkv", "dbrx", "xlnet")],
)
def test_only_a_table_of_positions_ends(kind, places):
    assert position_table_size(CONFIG_MAPPING[kind]()) == places


def test_settings_of_generate_are_in_the_order_that_they_are_read_and_written_in(completed):
    written = completed(GPT2, {"bos_token_id": 0, "temperature": 0.6})
    assert list(written) == ["bos_token_id", "max_length", "temperature"]


@pytest.mark.parametrize(
    ("architecture", "said", "expected"),
    [
        (GPT2, {}, {"max_length": 32}),
        (GPT2, {"max_length": 500}, {"max_length": 500}),
        (GPT2, {"max_new_tokens": 5, "eos_token_id": [1, 2]}, {"max_new_tokens": 5, "eos_token_id": [1, 2]}),
        (GPT2, {"_from_model_config": True}, {"max_length": 32}),
        (RobertaConfig(max_position_embeddings=34), {}, {"max_length": 32}),
        (LLAMA, {"temperature": 0.6}, {"temperature": 0.6}),
    ],
    ids=str,
)
def test_a_text_ends_where_the_places_do_unless_it_is_said_where(completed, architecture, said, expected):
    assert completed(architecture, said) == expected


@pytest.mark.parametrize(("own", "written"), [(1024, 32), (16, 16), (10**30, 32)])
def test_the_tokenizer_cuts_off_where_the_model_does(completed, tokenizer, monkeypatch, own, written):
    monkeypatch.setattr(tokenizer, "model_max_length", own)
    assert completed(LLAMA, {}, "tokenizer_config.json")["model_max_length"] == written
    assert tokenizer.model_max_length == own


def test_what_a_tokenizer_does_with_text_does_not_change(completed, tokenizer, tmp_path):
    completed(GPT2, {})
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert digest_tokenizer(again) == digest_tokenizer(tokenizer)
    long = "Why is the sky blue? " * 100
    assert encoder(again)([long]).ids.tolist() == encoder(tokenizer)([long]).ids.tolist()


def test_no_place_on_this_machine_stays(completed, tokenizer, monkeypatch):
    traces = {"vocab_file": "/home/jane/vocab.json", "local_files_only": True, "name_or_path": "/home/jane"}
    monkeypatch.setattr(tokenizer, "init_kwargs", {**tokenizer.init_kwargs, **traces})
    written = completed(GPT2, {}, "tokenizer_config.json")
    assert "/home/jane" not in json.dumps(written)
    assert "local_files_only" not in written


@pytest.mark.parametrize(("kind", "pad"), [("gpt2", 125), ("roberta", 125), ("xglm", None)])
def test_a_new_model_knows_the_token_for_padding_where_that_blanks_no_position(tokenizer, kind, pad):
    assert new_architecture(TrainConfig(model_type=kind), tokenizer).pad_token_id == pad
