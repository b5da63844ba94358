"""The built-in sample: its rows, and the tokenizer that is trained on them."""

import hashlib
import json
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clm_core.sample import ROWS, TOKENIZER, rows
from clm_core.sample.topics import topics

ANSWERS = [text for row in rows() for text in row["answers"]["text"]]
SHA256 = "2058d75b0110e84482b11fcf6a5342c16103afacc2de6df781855c70548f2450"
MIXED = "Why is the sky blue?\n\n  Ünïcode 🙂 don't<|endoftext|>"
MIXED_IDS = [
    *[426, 276, 262, 894, 1147, 31, 199, 199, 221, 221, 128, 251, 78, 128],
    *[108, 750, 68, 69, 221, 173, 254, 248, 225, 282, 312, 7, 84, 0],
]


@pytest.fixture(scope="module")
def tokenizer():
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(TOKENIZER)


def test_the_rows_are_the_same_on_every_call_and_on_every_machine():
    assert list(rows()) == list(rows())
    assert hashlib.sha256("\n".join(ANSWERS).encode()).hexdigest() == SHA256


def test_fewer_rows_are_the_first_ones_of_more():
    assert list(rows(5)) == list(rows())[:5]
    assert len(list(rows())) == ROWS


def test_every_row_has_the_schema_of_eli5():
    for row in rows():
        assert {name: type(value) for name, value in row.items()} == {
            "q_id": str,
            "title": str,
            "selftext": str,
            "category": str,
            "subreddit": str,
            "answers": dict,
            "title_urls": list,
            "selftext_urls": list,
        }
        assert row["title"].endswith("?")
        assert row["subreddit"] == "explainlikeimfive"


def test_the_answers_of_a_row_are_lists_of_one_length():
    for row in rows():
        answers = row["answers"]
        count = len(answers["text"])
        assert 1 <= count <= 3
        assert answers["a_id"] == [f"{row['q_id']}a{index}" for index in range(count)]
        assert answers["text_urls"] == [[]] * count
        assert [type(text) for text in answers["text"]] == [str] * count
        assert [type(score) for score in answers["score"]] == [int] * count
        assert answers["score"] == sorted(answers["score"], reverse=True)


def test_every_answer_has_between_40_and_130_words():
    assert [text for text in ANSWERS if not 40 <= len(text.split()) <= 130] == []


def test_no_two_answers_are_equal():
    assert len(set(ANSWERS)) == len(ANSWERS)


def test_every_topic_has_enough_clauses_for_every_shape_of_an_answer():
    for topic in topics():
        least = {"questions": 2, "claims": 2, "facts": 3, "comparisons": 1, "consequences": 2, "occasions": 1}
        assert {name for name, count in least.items() if len(getattr(topic, name)) < count} == set(), topic.questions


def test_every_topic_is_asked_about():
    titles = {row["title"].removeprefix("ELI5: ") for row in rows()}
    assert [topic.questions for topic in topics() if titles.isdisjoint(topic.questions)] == []


def test_importing_the_sample_imports_no_tokenizer():
    code = "import sys, clm_core.sample; print({'transformers', 'tokenizers', 'numpy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_the_tokenizer_has_2048_entries_and_two_special_tokens(tokenizer):
    assert len(tokenizer) == 2048
    assert tokenizer.all_special_tokens == ["<|endoftext|>", "<|pad|>"]
    assert {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id} == {0}
    assert tokenizer.model_max_length == 1024


def test_the_tokenizer_gives_the_same_ids_in_every_version(tokenizer):
    assert tokenizer(MIXED)["input_ids"] == MIXED_IDS


@example("".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000, 257)])))
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_text_has_the_token_for_padding(tokenizer, text):
    assert tokenizer.pad_token_id not in tokenizer(text, split_special_tokens=True)["input_ids"]


def test_texts_of_different_lengths_make_a_batch(tokenizer):
    batch = tokenizer(["Why is the sky blue?", "Why?"], padding=True)
    assert len(set(map(len, batch["input_ids"]))) == 1
    assert batch["attention_mask"][1].count(0) == batch["input_ids"][1].count(tokenizer.pad_token_id) > 0
    assert tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True) == ["Why is the sky blue?", "Why?"]


@example(MIXED)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_decoding_gives_back_any_text_that_was_encoded(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert all(0 <= token < 2048 for token in ids)


def test_training_again_gives_the_vocabulary_and_merges_that_are_shipped():
    pytest.importorskip("tokenizers")
    from clm_core.sample.train_tokenizer import train

    shipped = json.loads((TOKENIZER / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    trained = json.loads(train().to_str())["model"]
    assert (trained["vocab"], trained["merges"]) == (shipped["vocab"], shipped["merges"])
