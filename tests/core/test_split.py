"""The split: by document, decided by the seed, with an exact share."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import clm_core as clm
from clm_core.data.sources import is_held_out

PERCENTAGES = st.integers(0, 99)


def held_out(count, percentage, seed=42):
    return [number for number in range(count) if is_held_out(number, seed=seed, percentage=percentage)]


@given(st.integers(0, 700), PERCENTAGES, st.integers(0, 2**32 - 1))
def test_the_share_is_exact_to_one_document(count, percentage, seed):
    assert abs(len(held_out(count, percentage, seed)) - count * percentage / 100) <= 1


@given(st.integers(1, 7), PERCENTAGES)
def test_the_share_of_whole_hundreds_is_exact(hundreds, percentage):
    assert len(held_out(100 * hundreds, percentage)) == hundreds * percentage


@given(st.integers(0, 300), st.integers(0, 300), PERCENTAGES)
def test_more_documents_move_none_of_the_first(count, more, percentage):
    assert held_out(count + more, percentage)[: len(held_out(count, percentage))] == held_out(count, percentage)


def test_zero_percent_holds_out_nothing():
    assert held_out(1000, 0) == []


def test_another_seed_holds_out_others():
    assert held_out(100, 20, seed=1) != held_out(100, 20, seed=2)


def test_the_documents_are_drawn_and_not_counted_off():
    assert {number % 5 for number in held_out(500, 20)} == {0, 1, 2, 3, 4}


def written(result, tokenizer):
    """The documents in each split of prepared data."""
    from clm_core import Prepared

    prepared = Prepared.open(result.folder)
    texts = {
        split: tokenizer.decode(prepared.tokens(split)).split("<|endoftext|>")[:-1] for split in result.ledger["splits"]
    }
    return texts.get("train"), texts.get("validation")


@pytest.fixture
def prepare(tmp_path):
    def run(texts, **options):
        (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return clm.prepare(**{"train_file": "a.jsonl", "block_size": 2, "tokenizer_name": "sample", **options})

    return run


TEXTS = [f"document {number}" for number in range(50)]


def test_every_document_is_whole_in_one_split(prepare, tokenizer):
    train, validation = written(prepare(TEXTS, validation_split_percentage=30), tokenizer)
    assert sorted(train + validation, key=TEXTS.index) == TEXTS
    assert len(validation) == 15


def test_blank_documents_do_not_change_the_split_of_the_others(prepare, tokenizer):
    blanks = [text for pair in zip(TEXTS, [""] * 50, strict=True) for text in pair]
    assert written(prepare(TEXTS), tokenizer) == written(prepare(blanks), tokenizer)


def test_the_seed_decides_the_split(prepare, tokenizer):
    assert written(prepare(TEXTS, seed=1), tokenizer) == written(
        prepare(TEXTS, seed=1, overwrite_cache=True), tokenizer
    )
    assert written(prepare(TEXTS, seed=1), tokenizer) != written(prepare(TEXTS, seed=2), tokenizer)


def test_zero_percent_gives_no_validation_split(prepare, tokenizer):
    assert written(prepare(TEXTS, validation_split_percentage=0), tokenizer) == (TEXTS, None)


def test_a_validation_file_is_used_whole_and_nothing_is_held_out_of_the_other(prepare, tokenizer, tmp_path):
    (tmp_path / "v.txt").write_text("first\nsecond\n")
    result = prepare(TEXTS, validation_file="v.txt", sample_by="line")
    assert written(result, tokenizer) == (TEXTS, ["first\n", "second\n"])


def test_the_limits_count_documents_and_the_rest_is_reported_as_skipped(prepare, tokenizer):
    result = prepare(TEXTS, max_train_samples=8, max_eval_samples=12)
    train, validation = written(result, tokenizer)
    assert (len(train), len(validation)) == (8, 10)
    assert result.ledger["documents"] == {"read": 50, "empty": 0, "skipped": 32, "elsewhere": 0}


def test_reading_ends_when_the_limits_are_reached(prepare, tokenizer):
    result = prepare(TEXTS, max_train_samples=4, max_eval_samples=1)
    assert [len(texts) for texts in written(result, tokenizer)] == [4, 1]
    assert result.ledger["documents"]["read"] < 10
