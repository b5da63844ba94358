"""From text to blocks: checked against an oracle of five lines, for any documents, threads and slices."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import clm_core as clm
from clm_core.config import PrepareConfig
from clm_core.data import preparation, tokenization
from clm_core.data.preparation import Preparation

EOS = 0
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), min_size=1, max_size=12)
WITH_BLANKS = ["first", "", "second", None, "  \n ", "third"]


def oracle(tokenizer, texts, block_size):
    """The blocks as the guide would have them, on whole lists, with an end-of-sequence token after each document."""
    ids = [token for text in texts if text and text.strip() for token in [*tokenizer(text)["input_ids"], EOS]]
    return [ids[start : start + block_size] for start in range(0, len(ids) - block_size + 1, block_size)]


def write(folder, texts):
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


def prepare(tokenizer, folder, texts, *, target=None, workers=2, **options):
    given = {"train_file": (write(folder, texts),), "validation_split_percentage": 0, **options}
    made = Preparation.make(PrepareConfig(**given), tokenizer)
    return preparation.prepare(made, target or folder / "prepared", workers=workers, overwrite=True)[0]


@given(texts=TEXTS, block_size=st.integers(2, 50))
@settings(max_examples=60)
def test_the_blocks_are_those_of_the_oracle(tokenizer, tmp_path_factory, texts, block_size):
    texts = [*texts, "at least this"]
    prepared = prepare(tokenizer, tmp_path_factory.mktemp("blocks"), texts)
    assert prepared.blocks("train", block_size).tolist() == oracle(tokenizer, texts, block_size)


@given(texts=TEXTS, block_size=st.integers(2, 50), percentage=st.integers(0, 99), limit=st.none() | st.integers(1, 9))
@settings(max_examples=60)
def test_the_ledger_balances(tokenizer, tmp_path_factory, texts, block_size, percentage, limit):
    texts = [*texts, *(f"text {number}" for number in range(100))]
    folder = tmp_path_factory.mktemp("ledger")
    options = {"validation_split_percentage": percentage, "max_eval_samples": limit}
    ledger = prepare(tokenizer, folder, texts, **options).ledger(block_size)
    documents = ledger["documents"]
    used = sum(split["documents"] for split in ledger["splits"].values())
    assert documents["read"] == len(texts) == documents["empty"] + documents["skipped"] + used
    for split in ledger["splits"].values():
        assert split["tokens"] + split["eos_added"] == split["tokens_kept"] + split["tokens_dropped"]
        assert split["tokens_kept"] == split["blocks"] * block_size
        assert split["eos_added"] == split["documents"]
        assert split["tokens_dropped"] < block_size


@given(texts=TEXTS, workers=st.sampled_from([1, 2, 4]), documents=st.integers(1, 5), characters=st.integers(1, 60))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_threads_and_slices_change_no_byte(
    tokenizer, tmp_path_factory, monkeypatch, texts, workers, documents, characters
):
    folder = tmp_path_factory.mktemp("bytes")
    texts = [*texts, *(f"text {number}" for number in range(20))]
    options = {"validation_split_percentage": 25}
    prepare(tokenizer, folder, texts, target=folder / "plain", workers=1, **options)
    with monkeypatch.context() as patch:
        patch.setattr(tokenization, "SLICE_DOCUMENTS", documents)
        patch.setattr(tokenization, "SLICE_CHARACTERS", characters)
        prepare(tokenizer, folder, texts, target=folder / "sliced", workers=workers, **options)
    plain, sliced = (
        {path.name: path.read_bytes() for path in (folder / name).iterdir()} for name in ("plain", "sliced")
    )
    assert plain == sliced


def test_the_end_of_sequence_token_stands_after_each_document(tokenizer, tmp_path):
    tokens = prepare(tokenizer, tmp_path, ["one", "two"]).tokens("train").tolist()
    assert tokens == [*tokenizer("one")["input_ids"], EOS, *tokenizer("two")["input_ids"], EOS]


def test_without_append_eos_the_documents_follow_each_other_bare(tokenizer, tmp_path):
    tokens = prepare(tokenizer, tmp_path, ["one", "two"], append_eos=False).tokens("train").tolist()
    assert tokens == [*tokenizer("one")["input_ids"], *tokenizer("two")["input_ids"]]


def test_a_document_that_quotes_the_end_of_sequence_token_does_not_end_there(tokenizer, tmp_path):
    text = "Then it writes <|endoftext|> and stops."
    tokens = prepare(tokenizer, tmp_path, [text]).tokens("train").tolist()
    assert tokens.count(EOS) == 1
    assert tokenizer.decode(tokens[:-1]) == text


def test_rows_without_text_are_counted_and_dropped(tokenizer, tmp_path):
    prepared = prepare(tokenizer, tmp_path, WITH_BLANKS)
    assert prepared.ledger(2)["documents"] == {"read": 6, "empty": 3, "skipped": 0, "elsewhere": 0}
    assert (
        prepared.tokens("train").tolist()
        == prepare(tokenizer, tmp_path, ["first", "second", "third"]).tokens("train").tolist()
    )


def test_where_each_document_ends_is_written_beside_the_tokens(tokenizer, tmp_path):
    prepared = prepare(tokenizer, tmp_path, ["one", "", "two and three"])
    ends = np.fromfile(prepared.folder / "train.ends", "<u8").tolist()
    assert [prepared.tokens("train")[end - 1] for end in ends] == [EOS, EOS]
    assert tokenizer.decode(prepared.tokens("train")[ends[0] : ends[1] - 1]) == "two and three"


def test_two_bytes_a_token_are_enough_for_a_small_vocabulary(tokenizer, tmp_path):
    prepared = prepare(tokenizer, tmp_path, ["one two three"])
    tokens = prepared.manifest.splits["train"].tokens_written
    assert (prepared.folder / "train.bin").stat().st_size == 2 * tokens


def test_the_bytes_of_the_documents_are_those_of_utf8(tokenizer, tmp_path):
    assert prepare(tokenizer, tmp_path, ["ünï🙂", "a"]).manifest.splits["train"].bytes == len("ünï🙂a".encode())


def test_many_documents_are_written_in_several_flushes_without_a_seam(tokenizer, tmp_path):
    texts = [f"text {number}" for number in range(2500)]
    prepared = prepare(tokenizer, tmp_path, texts)
    assert prepared.blocks("train", 64).tolist() == oracle(tokenizer, texts, 64)
    ends = np.fromfile(prepared.folder / "train.ends", "<u8")
    assert set(prepared.tokens("train")[ends - 1].tolist()) == {EOS}
    assert np.all(np.diff(ends) > 0)


@pytest.mark.parametrize("column", ["answers.text", "title"])
def test_the_built_in_sample_is_prepared_where_no_data_are_named(column):
    result = clm.prepare(text_column=column, max_train_samples=20, max_eval_samples=5, block_size=16)
    assert [split["documents"] for split in result.ledger["splits"].values()] == [20, 5]


def test_a_data_set_is_split_by_its_own_validation_split(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    for split, count in (("train", 12), ("validation", 5)):
        rows = [{"answers": {"text": [f"{split} {number}", "and more"]}} for number in range(count)]
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = clm.prepare(
        dataset_name=tmp_path / "mine", text_column="answers.text", tokenizer_name="sample", block_size=8
    )
    assert [split["documents"] for split in result.ledger["splits"].values()] == [12, 5]


def test_a_slice_of_a_data_set_may_be_named(tmp_path, monkeypatch, corpus):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    (tmp_path / "mine").mkdir()
    corpus.rename(tmp_path / "mine" / "train.jsonl")
    result = clm.prepare(
        dataset_name=tmp_path / "mine", dataset_split="train[:10]", tokenizer_name="sample", block_size=8
    )
    assert [split["documents"] for split in result.ledger["splits"].values()] == [8, 2]
