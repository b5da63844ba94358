"""Text out as it reads: whatever the tokenizer, what is added to a prompt is what the tokens say."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_corpus import SMALL
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

import clm_core as clm
from clm_core.commands.generate import prompt_ids
from clm_core.commands.inspect import inspect
from clm_core.config import GenerateConfig, InspectConfig
from clm_core.errors import ModelError
from clm_core.models.decoding import continuation
from clm_core.models.generation_settings import load_ends

WORDS = ["the", "cat", "sat", "on", "mat", "it", "'s", "great", ",", "is", "n't", "."]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
TEXT = "the cat sat on the mat . it 's great , is n't"


def fast(model, pre_tokenizer, decoder, **options):
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoder
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", **options)


def llama2():
    pieces = ["<unk>", "<s>", "</s>", *BYTES, "▁", *(f"▁{word}" for word in WORDS), *"abcdefghijklmnopqrstuvwxyz"]
    model = models.Unigram([(piece, -float(len(pieces) - place)) for place, piece in enumerate(pieces)], 0, True)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer = fast(model, None, decoders.Sequence(steps), bos_token="<s>", clean_up_tokenization_spaces=True)
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def t5():
    pieces = ["<pad>", "</s>", "<unk>", "▁", *(f"▁{word}" for word in WORDS)]
    model = models.Unigram([(piece, -float(place)) for place, piece in enumerate(pieces)], 2, False)
    tokenizer = fast(model, pre_tokenizers.Metaspace(), decoders.Metaspace())
    processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.backend_tokenizer.post_processor = processor
    return tokenizer


def word_piece():
    entries = ["[UNK]", "</s>", *WORDS, "'", "n", "t", "s", "##s", "##at"]
    model = models.WordPiece({entry: place for place, entry in enumerate(entries)}, unk_token="[UNK]")
    return fast(model, pre_tokenizers.Whitespace(), decoders.WordPiece(cleanup=True))


def byte_level():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    model = models.BPE({entry: place for place, entry in enumerate(["</s>", *alphabet])}, [])
    return fast(model, pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel())


@pytest.fixture(params=[llama2, t5, word_piece, byte_level, ByT5Tokenizer], ids=lambda make: make.__name__)
def any_tokenizer(request):
    return request.param()


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_completion_keeps_its_first_space_and_every_other(any_tokenizer):
    head, whole = ids_of(any_tokenizer, "the cat"), ids_of(any_tokenizer, TEXT)
    assert whole[: len(head)] == head
    found = continuation(any_tokenizer, head, [*whole[len(head) :], any_tokenizer.eos_token_id])
    split_by_the_tokenizer = found.replace(" n ' t", " n't").replace("' s", "'s")
    assert split_by_the_tokenizer == " sat on the mat . it 's great , is n't"


def test_the_first_word_of_all_has_no_space_before_it(any_tokenizer):
    assert continuation(any_tokenizer, [], ids_of(any_tokenizer, "the cat")) == "the cat"


@pytest.mark.parametrize("make", [llama2, byte_level])
@pytest.mark.parametrize("prompt", ["the", "日", "日日"])
@pytest.mark.parametrize(
    ("more", "lost", "shown"), [("日", 0, "日"), ("日", 1, "�"), ("日日", 2, "日�"), ("😀é", 1, "😀�")]
)
def test_a_character_of_several_tokens_that_is_cut_off_spoils_no_other(make, prompt, more, lost, shown):
    tokenizer = make()
    head, whole = ids_of(tokenizer, prompt), ids_of(tokenizer, prompt + more)
    new = whole[len(head) : len(whole) - lost]
    assert continuation(tokenizer, head, [*new, tokenizer.eos_token_id]) == shown


@given(ids=st.lists(st.integers(1, 256), max_size=8))
def test_bytes_that_are_no_text_are_shown_as_the_tokenizer_shows_them(ids):
    tokenizer = byte_level()
    assert continuation(tokenizer, [], ids) == tokenizer.decode(ids)


@given(text=st.text("日é😀 thé cat.", max_size=12), cut=st.integers(0, 12))
def test_a_text_is_put_together_again_wherever_it_was_cut(text, cut):
    tokenizer = byte_level()
    head, rest = (ids_of(tokenizer, part) for part in (text[:cut], text[cut:]))
    assert text[:cut] + continuation(tokenizer, head, rest) == text


@pytest.mark.parametrize("special", [False, True])
def test_special_tokens_are_shown_where_this_is_asked_for(special):
    tokenizer = llama2()
    ids = [tokenizer.bos_token_id, *ids_of(tokenizer, "the cat")]
    assert continuation(tokenizer, ids, [tokenizer.eos_token_id], special=special) == "</s>" * special


@pytest.fixture
def cats(tmp_path):
    """A model of pairs that has learnt one line under a tokenizer of words, and the folder of its data."""
    tokenizer = t5()
    tokenizer.save_pretrained("tokenizer")
    (tmp_path / "cats.jsonl").write_text('{"text": "the cat sat on mat ."}\n' * 200)
    options = {**SMALL, "tokenizer_name": "tokenizer", "save_strategy": "no"}
    clm.train(backend="bigram", train_file="cats.jsonl", output_dir="run", **options)
    return tmp_path / "run"


def test_the_command_continues_a_prompt_as_it_reads(cats):
    result = clm.generate("the cat", backend="bigram", model_name_or_path=cats, max_new_tokens=9)
    assert (result.completion, result.tokens) == (" sat on mat .", 5)


def test_generation_stops_at_every_token_that_generation_config_names(cats):
    on = t5().convert_tokens_to_ids("▁on")
    (cats / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, on]}))
    result = clm.generate("the cat", backend="bigram", model_name_or_path=cats, max_new_tokens=9)
    assert (result.completion, result.tokens) == (" sat on", 2)


@pytest.mark.parametrize("content", ["{", "[]", '{"eos_token_id": "</s>"}', '{"eos_token_id": [1, null]}', "\x00"])
def test_a_damaged_generation_config_is_named(cats, content):
    (cats / "generation_config.json").write_text(content)
    with pytest.raises(ModelError, match=r"generation_config\.json"):
        load_ends(GenerateConfig(model_name_or_path=str(cats)), t5())


def test_a_block_that_begins_within_a_document_reads_as_it_does_there(cats):
    clm.prepare(train_file="cats.jsonl", tokenizer_name="tokenizer", block_size=4, output_dir="data")
    block = inspect(Path("data"), InspectConfig(block=1, block_size=4)).block
    assert [piece["text"] for piece in block["pieces"]] == [" mat .</s>", "the"]


def test_a_line_break_that_ends_texts_may_end_a_prompt():
    characters = models.WordLevel({"\n": 0, "<unk>": 1, **{letter: 2 + i for i, letter in enumerate("ROME:")}}, "<unk>")
    tokenizer = fast(characters, pre_tokenizers.Split("", "isolated"), decoders.Fuse())
    tokenizer.eos_token = "\n"
    assert prompt_ids(tokenizer, "ROMEO:\n") == [2, 3, 4, 5, 3, 6, 0]


def test_what_a_template_closes_a_text_with_is_taken_off_a_prompt():
    assert prompt_ids(t5(), "the cat") == ids_of(t5(), "the cat")
    assert prompt_ids(llama2(), "the cat") == [1, *ids_of(llama2(), "the cat")]
