"""Tokens reach the disk as the tokenizer made them, whatever its vocabulary."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpus import SMALL
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

import clm_core as clm
from clm_core.config import PrepareConfig
from clm_core.data import preparation
from clm_core.data.preparation import Preparation
from clm_core.data.split_writer import SplitWriter
from clm_core.data.tokenization import Tokens
from clm_core.errors import ModelError
from clm_core.models.templates import Template, template_of
from clm_core.models.vocabulary import check_tokenizer, count_ids

TEXTS = ["abc cde cab bed dead ace face", "abba", "fed"]


def fast(model, **special):
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def characters(ids, **special):
    """A tokenizer of the characters a to f, and the space, with these ids."""
    vocabulary = {"<eos>": ids[0], "<unk>": ids[1], **dict(zip("abcdef ", ids[2:], strict=True))}
    return fast(models.WordLevel(vocabulary, "<unk>"), **{"eos_token": "<eos>", "unk_token": "<unk>", **special})


def prepare(tokenizer, folder, texts=TEXTS, **options):
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    given = {"train_file": (str(folder / "a.jsonl"),), "validation_split_percentage": 0, **options}
    return preparation.prepare(Preparation.make(PrepareConfig(**given), tokenizer), folder / "data", overwrite=True)[0]


IDS = st.lists(st.integers(0, 20) | st.integers(65_500, 70_000), min_size=9, max_size=9, unique=True)


@given(ids=IDS)
@settings(max_examples=15)
def test_every_id_is_on_disk_as_it_was_made(ids, tmp_path_factory):
    tokenizer = characters(ids)
    prepared = prepare(tokenizer, tmp_path_factory.mktemp("ids"))
    expected = [token for text in TEXTS for token in [*tokenizer(text)["input_ids"], ids[0]]]
    assert prepared.tokens("train").tolist() == expected
    assert prepared.manifest.splits["train"].largest_id == max(expected) < prepared.manifest.vocabulary
    assert prepared.manifest.dtype == ("<u2" if max(ids) < 2**16 else "<u4")


@pytest.mark.parametrize("eos", [[], [7], [2**16]])
def test_a_token_that_the_file_cannot_hold_is_never_changed_to_fit(tmp_path, eos):
    tokens = Tokens(np.array([5, 2**16 - 1 if eos == [2**16] else 2**16], np.uint32), np.array([2]))
    with SplitWriter(tmp_path, "train", dtype="<u2", eos=eos) as writer, pytest.raises(RuntimeError, match="65536"):
        writer.add(tokens, size=2)


@pytest.fixture
def gaps(tmp_path):
    """The folder of a tokenizer of nine entries with ids up to 30."""
    characters([0, 1, 30, 3, 9, 5, 22, 7, 8]).save_pretrained("gaps")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS * 20))
    return {**SMALL, "train_file": "a.jsonl", "tokenizer_name": "gaps"}


def test_a_new_model_has_an_embedding_for_the_largest_id(gaps):
    run = clm.train(backend="bigram", output_dir="run", **gaps)
    assert json.loads((run.output_dir / "config.json").read_text())["vocab_size"] == 31


def test_too_few_embeddings_are_refused_before_anything_is_tokenized_with_the_number_that_works(gaps, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "tokenize", pytest.fail)
        with pytest.raises(ModelError, match=r"ids up to 30, .* only 9 .*vocab_size=31"):
            clm.train(backend="bigram", output_dir="run", config_overrides="vocab_size=9", **gaps)
    clm.train(backend="bigram", output_dir="run", config_overrides="vocab_size=31", **gaps)


NUCLEOTIDES = {letter: 1 + place for place, letter in enumerate("ACGTN")}


@pytest.mark.parametrize(
    "tokenizer",
    [
        fast(models.WordLevel({"<eos>": 0, **NUCLEOTIDES}, "<eos>"), eos_token="<eos>", unk_token="<eos>"),
        fast(models.WordLevel({"<eos>": 0, **NUCLEOTIDES}), eos_token="<eos>"),
        fast(models.BPE({"<eos>": 0, **NUCLEOTIDES}, []), eos_token="<eos>"),
        fast(models.Unigram([("<eos>", 0.0), *((letter, -1.0) for letter in "ACGTN")], 0), eos_token="<eos>"),
    ],
)
def test_documents_end_and_are_prepared_though_the_tokenizer_knows_no_letter_a(tokenizer, tmp_path):
    check_tokenizer(tokenizer, "it")
    prepared = prepare(tokenizer, tmp_path, ["ACGT", "N", "GATTACA"])
    assert prepared.manifest.splits["train"].eos_added == 3
    assert prepared.tokens("train").tolist() == [1, 2, 3, 4, 0, 5, 0, 3, 1, 4, 4, 1, 2, 1, 0]


def template(single, **ids):
    return processors.TemplateProcessing(single=single, special_tokens=list(ids.items()))


PROCESSORS = [
    (None, (), ()),
    (processors.ByteLevel(), (), ()),
    (template("eos $A", eos=0), (0,), ()),
    (template("$A eos", eos=0), (), (0,)),
    (template("cls $A eos lang", cls=7, eos=0, lang=9), (7,), (0, 9)),
    (processors.BertProcessing(("eos", 0), ("cls", 7)), (7,), (0,)),
    (processors.RobertaProcessing(("eos", 0), ("cls", 7)), (7,), (0,)),
    (processors.Sequence([processors.ByteLevel(), template("bos $A", bos=7)]), (7,), ()),
]


@pytest.mark.parametrize(("processor", "before", "after"), PROCESSORS)
def test_a_template_is_known_and_puts_no_second_end_to_a_document(processor, before, after, tmp_path):
    tokenizer = characters(range(9))
    if processor is not None:
        tokenizer.backend_tokenizer.post_processor = processor
    assert template_of(tokenizer) == Template(before, after)
    prepared = prepare(tokenizer, tmp_path)
    assert prepared.manifest.splits["train"].eos_added == (0 if 0 in before + after else len(TEXTS))
    assert prepared.tokens("train").tolist().count(0) == len(TEXTS)


def test_the_template_of_a_slow_tokenizer_is_known_too():
    assert template_of(ByT5Tokenizer()) == Template((), (1,))


def test_ids_that_only_a_template_makes_are_counted(tmp_path):
    tokenizer = characters(range(9))
    tokenizer.backend_tokenizer.post_processor = template("$A far", far=70_000)
    assert (count_ids(tokenizer), prepare(tokenizer, tmp_path).tokens("train").max()) == (70_001, 70_000)


@pytest.mark.parametrize("entries", [{}, {"<eos>": 0}, {"<eos>": 0, "<unk>": 1}, {"<eos>": 0, "<unk>": 1, "▁": 2}])
def test_a_tokenizer_with_nothing_but_special_tokens_is_empty(entries):
    with pytest.raises(ModelError, match="empty"):
        check_tokenizer(fast(models.BPE(entries, []), eos_token="<eos>", unk_token="<unk>"), "it")


def test_what_the_library_says_of_left_out_ids_is_not_mixed_with_json(gaps):
    argv = ["prepare", "--train-file", "a.jsonl", "--tokenizer-name", "gaps", "--block-size", "8", "--json"]
    done = subprocess.run([sys.executable, "-m", "clm_core", *argv], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["tokenizer_name"] == "gaps"
