"""Where the reading of documents ends: at a number of tokens, or of documents, in a file or in a stream."""

import json
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clm_core as clm
from clm_core.config import PrepareConfig
from clm_core.data import preparation, tokenization
from clm_core.data.preparation import Preparation
from clm_core.data.prepared import Prepared
from clm_core.data.sources import Source, Sources
from clm_core.errors import DataError, OptionError

SIZES = st.lists(st.integers(0, 12), min_size=1, max_size=30)


def prepare(tokenizer, folder, documents, *, streaming=False, workers=1, held_out=0, **options):
    """Prepare the documents of an iterator, as a file or as a stream of them."""
    recipe = Preparation.make(PrepareConfig(tokenizer_name="sample", text_column="title", **options), tokenizer)
    source = Source(name="the test's documents", fingerprint="", documents=documents)
    sources = Sources(train=source, validation=None, held_out_percentage=held_out, streaming=streaming)
    changed = replace(recipe, sources=sources)
    return preparation.prepare(changed, folder / "prepared", workers=workers, overwrite=True)[0]


def texts(sizes):
    return [" the" * size for size in sizes]


@given(sizes=SIZES, limit=st.integers(1, 60), workers=st.sampled_from([1, 3]), at_once=st.integers(1, 5))
@settings(max_examples=60)
def test_the_last_document_is_the_one_that_reaches_the_tokens(
    tokenizer, tmp_path_factory, sizes, limit, workers, at_once
):
    folder = tmp_path_factory.mktemp("tokens")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenization, "SLICE_DOCUMENTS", at_once)
        prepared = prepare(tokenizer, folder, lambda: iter(texts([*sizes, 3])), workers=workers, max_train_tokens=limit)
    expected, total = [], 0
    for size in (size for size in [*sizes, 3] if size):
        if total < limit:
            expected, total = [*expected, size], total + size
    record = prepared.manifest.splits["train"]
    assert (record.documents, record.tokens) == (len(expected), total)
    # Nothing that was read ahead is counted.
    read = [*sizes, 3] if total < limit else [*sizes, 3][: place_of_nth(len(expected), [*sizes, 3])]
    assert prepared.manifest.documents_read == len(read)


def place_of_nth(number, sizes):
    """How many documents there are up to and with the one that is the `number`-th with a text."""
    return [place for place, size in enumerate(sizes, 1) if size][number - 1]


@pytest.mark.parametrize("limit", [{"max_train_samples": 50}, {"max_train_tokens": 400}])
def test_a_stream_without_an_end_ends_at_the_limit_of_the_training(tokenizer, tmp_path, limit):
    endless = lambda: (f"document {number} of many" for number in count())  # noqa: E731
    prepared = prepare(tokenizer, tmp_path, endless, streaming=True, held_out=20, **limit)
    train, validation = (prepared.manifest.splits[split].documents for split in ("train", "validation"))
    assert prepared.manifest.documents_read == train + validation
    assert abs(validation - (train + validation) / 5) <= 1


def test_what_is_broken_beyond_the_tokens_that_are_wanted_is_never_met(tokenizer, tmp_path):
    def documents():
        yield from texts([4, 4, 4])
        raise DataError("line 4 is broken")

    assert prepare(tokenizer, tmp_path, documents, max_train_tokens=12).manifest.documents_read == 3
    with pytest.raises(DataError, match="line 4 is broken"):
        prepare(tokenizer, tmp_path, documents, max_train_tokens=13)


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """A folder that `datasets` reads as it reads a repository on the Hub: 30 rows, and 4 to validate on."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    for split, rows in (("train", 30), ("validation", 4)):
        lines = [json.dumps({"answers": {"text": [f"{split} {row}", "more"]}}) for row in range(rows)]
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / f"{split}.jsonl").write_text("\n".join(lines))
    given = {"dataset_name": tmp_path / "mine", "tokenizer_name": "sample", "block_size": 8}
    return lambda **options: clm.prepare(**{**given, "text_column": "answers.text", **options})


def tokens(result):
    prepared = Prepared.open(result.folder)
    return {split: prepared.tokens(split).tolist() for split in prepared.manifest.splits}


def test_a_streamed_data_set_has_the_tokens_of_the_downloaded_one(dataset, tmp_path):
    streamed = dataset(streaming=True)
    assert list((tmp_path / "datasets").glob("**/*.arrow")) == []
    assert tokens(streamed) == tokens(dataset())


def test_a_streamed_data_set_is_found_prepared_the_second_time(dataset):
    assert [dataset(streaming=True, max_train_samples=5).reused for _ in range(2)] == [False, True]
    assert not dataset(streaming=True, max_train_samples=6).reused


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dataset_split": "train[:5]"}, OptionError, "a stream cannot be sliced; name a whole split"),
        ({"dataset_split": "tests"}, DataError, r"has no split 'tests': .* \(splits: train, validation\)"),
        (
            {"text_column": "answer.text"},
            DataError,
            "no column 'answer.text'.* did you mean --text-column answers.text",
        ),
        ({"dataset_name": None}, OptionError, "streaming True has no effect without dataset_name"),
    ],
)
def test_a_stream_that_cannot_be_is_refused(dataset, options, error, message):
    with pytest.raises(error, match=message):
        dataset(streaming=True, **options)


def test_a_row_that_breaks_a_stream_is_named(dataset, tmp_path):
    with (tmp_path / "mine" / "train.jsonl").open("a") as file:
        file.write("\n{broken")
    with pytest.raises(DataError, match=r"cannot read dataset .*mine train: "):
        dataset(streaming=True)
