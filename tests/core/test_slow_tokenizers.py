"""Tokenizers that are written in Python do as the fast ones: special tokens in a text stay text; and are told apart."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    ByT5Tokenizer,
    CTRLTokenizer,
    EsmTokenizer,
    PerceiverTokenizer,
    PreTrainedTokenizerFast,
    ProphetNetTokenizer,
)

import clm_core as clm
from clm_core.data.tokenization import digest_tokenizer, encoder
from clm_core.errors import ClmError, ModelError

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"ABCHW.,<>/[]é中文",
    *LETTERS,
    *(f"##{letter}" for letter in LETTERS),
]
AMINO_ACIDS = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<mask>"]


def prophet(folder=Path("prophet"), **flags):
    folder.mkdir(exist_ok=True)
    (folder / "prophetnet.tokenizer").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return ProphetNetTokenizer(str(folder / "prophetnet.tokenizer"), **flags)


def ctrl(merges="o n\no ne</w>\n"):
    words = [
        "<unk>",
        *LETTERS,
        *(f"{letter}</w>" for letter in LETTERS),
        "on",
        "ne</w>",
        "one</w>",
        "one",
        "t@@",
        "w@@",
    ]
    Path("vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
    Path("merges.txt").write_text(f"#version: 0.2\n{merges}")
    return CTRLTokenizer("vocab.json", "merges.txt")


def esm():
    Path("vocab.txt").write_text("\n".join(AMINO_ACIDS))
    return EsmTokenizer("vocab.txt")


def encode(tokenizer, text):
    return encoder(tokenizer)([text]).ids.tolist()


@pytest.mark.parametrize("text", ["one </s> two", "</s>", " </s> ", "<pad><unk></s>", "<extra_id_0> x", "\n</s>\n"])
def test_a_byte_is_a_byte_whatever_it_spells(text):
    assert encode(ByT5Tokenizer(), text) == [*(byte + 3 for byte in text.encode()), 1]
    assert encode(PerceiverTokenizer(), text.replace("/s", "SEP")) == [
        *[4, *(byte + 6 for byte in text.replace("/s", "SEP").encode()), 5]
    ]


def test_special_tokens_are_split_and_lowered_as_text():
    ids = encode(prophet(), "one [SEP] two[MASK]")
    expected = ["o", "##n", "##e", "[", "s", "##e", "##p", "]", "t", "##w", "##o", "[", "m", "##a", "##s", "##k", "]"]
    assert ids == [*map(PIECES.index, expected), PIECES.index("[SEP]")]


def test_a_word_that_is_a_special_entry_of_the_vocabulary_is_unknown():
    places = [AMINO_ACIDS.index(letter) if letter != "?" else 3 for letter in "MKT?W"]
    assert encode(esm(), "MKT <eos> W") == [0, *places, 2]


def test_a_token_that_only_its_class_has_is_special_in_every_version(monkeypatch):
    monkeypatch.setitem(globals(), "PIECES", [*PIECES, "[X_SEP]"])
    tokenizer = prophet(do_basic_tokenize=False)  # Or the brackets are split off.
    assert encode(tokenizer, "a [X_SEP]") == encode(tokenizer, "a ?")
    assert digest_tokenizer(tokenizer)[:16] == "6b4cde3f6da47017"


@pytest.mark.parametrize("make", [ByT5Tokenizer, prophet, ctrl], ids=lambda make: make.__name__)
def test_added_tokens_that_are_not_special_stay_whole(make):
    tokenizer = make()
    tokenizer.add_tokens([AddedToken("one two", special=False, normalized=False)])
    ids = encode(tokenizer, "x one two x")
    assert ids.count(tokenizer.convert_tokens_to_ids("one two")) == 1


@pytest.mark.parametrize("make", [ByT5Tokenizer, prophet, ctrl, esm], ids=lambda make: make.__name__)
@given(text=st.text("one tMKW.Aé中\n,", max_size=20))
def test_other_texts_have_the_ids_that_transformers_gives_them(make, text):
    tokenizer = make()
    assert encode(tokenizer, text) == tokenizer(text)["input_ids"]


@pytest.mark.parametrize("kind", [models.Unigram, models.WordLevel])
@pytest.mark.parametrize("text", ["one </s> one", "</s>", "one</s>one"])
def test_a_fast_tokenizer_makes_no_special_token_of_a_text_either(kind, text):
    words = ["<unk>", "</s>", "▁one", "▁", "one", "<", "/", "s", ">"]
    scores = [(word, -float(place)) for place, word in enumerate(words)]
    vocabulary = {word: place for place, word in enumerate(words)}
    backend = Tokenizer(kind(scores, 0, False) if kind is models.Unigram else kind(vocabulary, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace() if kind is models.Unigram else pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")
    assert tokenizer.eos_token_id == 1
    assert 1 not in encode(tokenizer, text)
    assert encode(tokenizer, "one one") == tokenizer("one one")["input_ids"]


@pytest.mark.parametrize("kind", [models.WordPiece, models.WordLevel])
def test_the_unknown_token_of_a_model_stays_what_it_is_though_only_the_model_names_it(kind):
    backend = Tokenizer(kind({"[UNK]": 0, "</s>": 1, "one": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["[UNK]", "</s>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    assert encode(tokenizer, "one two </s>") == [2, 0, 0]


def test_a_text_that_a_tokenizer_cannot_take_is_one_line():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"one": 0, "two": 1})))
    with pytest.raises(ModelError, match="fails on a text"):
        encode(tokenizer, "three")


FLAGS = [
    *({"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False}),
    *({"never_split": ["one."]}, {"do_basic_tokenize": False}),
]


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: next(iter(flags)))
def test_two_that_differ_in_a_flag_are_two(flags):
    assert digest_tokenizer(prophet(**flags)) != digest_tokenizer(prophet())


def test_two_that_differ_in_their_merges_or_added_tokens_are_two():
    more = ctrl()
    more.add_tokens(["new"])
    digests = {digest_tokenizer(tokenizer) for tokenizer in (ctrl(), ctrl("o n\n"), ctrl("n e</w>\no n\n"), more)}
    assert len(digests) == 4


@pytest.mark.parametrize(
    "change", [{"model_max_length": 7}, {"chat_template": "{{ 1 }}"}, {"padding_side": "left"}, {"errors": "replace"}]
)
def test_what_only_describes_a_tokenizer_makes_no_other_of_it(change, tmp_path):
    prophet().save_pretrained("one")
    prophet(tmp_path / "elsewhere", **change).save_pretrained("two")
    one, two = (AutoTokenizer.from_pretrained(folder) for folder in ("one", "two"))
    assert digest_tokenizer(one) == digest_tokenizer(two) == digest_tokenizer(prophet())


def test_the_data_of_one_are_not_found_or_taken_for_those_of_the_other(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "Hello World ABC. " * 9}) + "\n")
    options = {"train_file": "a.jsonl", "append_eos": False, "validation_split_percentage": 0, "block_size": 8}
    for name, lower in (("uncased", True), ("cased", False)):
        prophet(do_lower_case=lower).save_pretrained(name)
        assert not clm.prepare(tokenizer_name=name, output_dir=f"of-{name}", **options).reused
        assert not clm.prepare(tokenizer_name=name, **options).reused
    tokens = [Path(f"of-{name}/train.bin").read_bytes() for name in ("uncased", "cased")]
    assert tokens[0] != tokens[1]
    with pytest.raises(ClmError, match="a different tokenizer"):
        clm.train(backend="bigram", prepared="of-cased", tokenizer_name="uncased", model_type="gpt2", block_size=8)


DIGESTS = [
    (ByT5Tokenizer, "aae73fb32e678b3f"),
    (prophet, "cd4c0413a71b1a29"),
    (ctrl, "0098728b129b157d"),
    (esm, "eb472355daf8532f"),
]


@pytest.mark.parametrize(("make", "digest"), DIGESTS)
def test_what_they_are_is_the_same_in_every_version(make, digest):
    make().save_pretrained("saved")
    for tokenizer in (make(), AutoTokenizer.from_pretrained("saved")):
        assert digest_tokenizer(tokenizer)[:16] == digest


def test_a_folder_without_tokenizer_json_is_the_same_in_every_version(tokenizer):
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    Path("vocab.json").write_text(json.dumps(model["vocab"]))
    Path("merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, model["merges"])) + "\n")
    Path("tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    assert digest_tokenizer(AutoTokenizer.from_pretrained("."))[:16] == "fde08f7544a052f4"
