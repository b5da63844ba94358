"""Shards of files: each reads its own files and no others, and together they are what one machine writes."""

import io
import json

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import Table, parquet
from small_corpus import DOCUMENTS
from test_shards import TEXTS, content

import clm_core as clm
from clm_core.config import PrepareConfig
from clm_core.data.merging import merge
from clm_core.data.preparation import Preparation
from clm_core.data.preparation import prepare as prepare_data
from clm_core.data.sources import is_held_out
from clm_core.errors import DataError, OptionError

OPTIONS = {"tokenizer_name": "sample", "block_size": 16, "shard_by": "file"}


def rows(texts):
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


@pytest.fixture
def sources(tmp_path):
    """A folder of five files of three kinds with the corpus, in the order of their names."""
    folder = tmp_path / "sources"
    folder.mkdir()
    texts = [DOCUMENTS[i::5] for i in range(5)]
    for number in (0, 3):
        (folder / f"{number}.jsonl").write_text(rows(texts[number]))
    for number in (1, 4):
        parquet.write_table(Table.from_pydict({"text": texts[number]}), folder / f"{number}.parquet")
    (folder / "2.csv").write_text("text\n" + "\n".join(texts[2]) + "\n")
    return folder


@pytest.fixture
def shards(sources):
    """Prepare shards of the files in a folder, and return their folders."""

    def run(count, numbers=None, source=f"{sources}/*", name="part", **options):
        numbers = numbers or range(1, count + 1)
        given = {"train_file": source, **OPTIONS, **options}
        return [clm.prepare(**given, shard=f"{i}/{count}", output_dir=f"{name}-{i}").folder for i in numbers]

    return run


@given(files=st.lists(TEXTS, min_size=1, max_size=7), evaluated=st.lists(TEXTS, max_size=2), data=st.data())
@settings(max_examples=25)
def test_the_merged_shards_are_byte_for_byte_what_one_machine_writes(
    tokenizer, tmp_path_factory, files, evaluated, data
):
    folder = tmp_path_factory.mktemp("shards")
    files[data.draw(st.integers(0, len(files) - 1))].extend(f"text {number}" for number in range(20))
    for name, listed in (("t", files), ("v", evaluated)):
        for number, texts in enumerate(listed):
            (folder / f"{name}-{number}.jsonl").write_text(rows([*texts, "the last"]), encoding="utf-8")
    given = {"train_file": (f"{folder}/t-*.jsonl",), "validation_split_percentage": 0 if evaluated else 25}
    given |= {"validation_file": (f"{folder}/v-*.jsonl",)} if evaluated else {}
    count = data.draw(st.integers(1, len(files) + len(evaluated)))

    def make(name, **options):
        preparation = Preparation.make(PrepareConfig(**given, **options), tokenizer)
        return prepare_data(preparation, folder / name, workers=1)[0].folder

    made = [make(f"part {i}", shard_by="file", shard=f"{i}/{count}") for i in range(count, 0, -1)]
    merge(made, folder / "merged", overwrite=False, say=print)
    assert content(folder / "merged") == content(make("whole", shard_by="file"))
    if evaluated:  # Without documents to draw, it is what comes without shard_by.
        plain = content(make("plain"))
        assert {**content(folder / "merged"), "manifest.json": 0} == {**plain, "manifest.json": 0}


def test_the_whole_is_found_in_the_cache_where_shards_were_merged_into_it(shards, sources):
    clm.prepare(merge=shards(3), block_size=16)
    assert clm.prepare(train_file=f"{sources}/*", **OPTIONS).reused


def test_a_shard_opens_its_own_files_alone_and_needs_only_the_names_of_the_others(shards, sources, monkeypatch):
    expected = content(shards(5, [2])[0])
    opened, really = set(), io.open
    monkeypatch.setattr(io, "open", lambda file, *more, **how: opened.add(str(file)) or really(file, *more, **how))
    for path in sources.iterdir():
        if path.name != "1.parquet":
            path.write_bytes(b"")
    opened.clear()
    assert content(shards(5, [2], name="alone")[0]) == expected
    assert {path for path in opened if path.startswith(str(sources))} == {f"{sources}/1.parquet"}


def test_a_shard_reads_its_own_files_behind_urls_alone():
    system = fsspec.filesystem("memory")
    system.pipe("/shards/b.jsonl", rows(DOCUMENTS).encode())
    urls = [f"memory://shards/{name}.jsonl" for name in "abc"]  # Two of them are not there.
    found = clm.prepare(train_file=urls, **OPTIONS, shard="2/3", output_dir="b")
    assert found.ledger["documents"]["read"] == 60
    with pytest.raises(DataError, match=r"c\.jsonl: there is no such file"):
        clm.prepare(train_file=urls, **OPTIONS, shard="3/3", output_dir="c")


def test_a_shard_without_validation_files_or_without_text_is_a_shard_all_the_same(tmp_path):
    (tmp_path / "a.jsonl").write_text(rows(["", " "]))
    (tmp_path / "b.jsonl").write_text(rows(DOCUMENTS))
    given = {"train_file": ["a.jsonl", "b.jsonl"], "validation_file": "b.jsonl", **OPTIONS}
    folders = [clm.prepare(**given, shard=f"{i}/3", output_dir=f"{i}").folder for i in (1, 2, 3)]
    ledger = clm.prepare(merge=folders, output_dir="whole", block_size=16).ledger
    assert ledger["documents"] == {"read": 122, "empty": 2, "skipped": 0, "elsewhere": 0}
    assert [split["documents"] for split in ledger["splits"].values()] == [60, 60]


def test_of_each_file_other_documents_are_held_out():
    drawn = {tuple(is_held_out(n, seed=42, percentage=20, file=file) for n in range(50)) for file in range(20)}
    assert len(drawn) == 20
    assert {sum(places) for places in drawn} == {10}
    first = [is_held_out(0, seed=42, percentage=20, file=file) for file in range(1000)]
    assert 150 < sum(first) < 250  # Of files with one document each, too.


def test_shards_of_lists_of_files_that_differ_are_not_merged(shards, sources, tmp_path):
    one = shards(2, [1])
    (sources / "5.jsonl").write_text(rows(DOCUMENTS))
    with pytest.raises(DataError, match="are not shards of the same data: their lists of files differ"):
        clm.prepare(merge=[*one, *shards(2, [2])])


def test_shards_from_copies_of_the_files_in_another_folder_are_merged(shards, sources):
    one = shards(2, [1])
    moved = sources.rename(sources.with_name("elsewhere"))
    assert clm.prepare(merge=[*one, *shards(2, [2], f"{moved}/*")], block_size=16).ledger["documents"]["read"] == 60


def test_shards_of_files_and_of_documents_are_not_merged_with_each_other(shards, sources):
    others = shards(2, [2], shard_by="document")
    with pytest.raises(DataError, match="are not shards of the same data: their options differ"):
        clm.prepare(merge=[*shards(2, [1]), *others])


def test_shards_of_which_no_document_is_held_out_are_merged_into_nothing(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(rows(["only one"]))
    given = {"train_file": "[ab].jsonl", "validation_split_percentage": 1, **OPTIONS}
    folders = [clm.prepare(**given, shard=f"{i}/2", output_dir=f"{i}").folder for i in (1, 2)]
    with pytest.raises(DataError, match="of 2 documents in the shards, none went to validation: give more"):
        clm.prepare(merge=folders, output_dir="whole")
    assert not (tmp_path / "whole").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard": "1/6"}, "shard 1/6: there are only 5 files to share out: use 5 shards at most, or leave shard_by"),
        ({"shard": "1/2", "max_train_samples": 9}, "with max_train_samples: a shard cannot know how many documents"),
        ({"shard": "1/2", "max_eval_samples": 9}, "with max_eval_samples: .* have; leave shard_by file out"),
        ({"shard": "1/2", "max_train_tokens": 9}, "with max_train_tokens: a shard cannot know how many tokens"),
        ({"shard": "1/2", "packing": "guide"}, "shard cannot be combined with packing guide"),
        ({"train_file": ()}, "shard_by file is for files: give --train-file, or leave it out"),
        ({"train_file": (), "dataset_name": "jane/a"}, r"shard_by file is for files: .* 'hf://datasets/jane/a/\*\*/"),
        ({"train_file": (), "dataset_name": "jane/a", "streaming": True, "shard": "1/2"}, "shard_by file is for files"),
    ],
    ids=str,
)
def test_what_shards_of_files_cannot_follow_is_rejected_with_the_way_out(sources, options, message):
    with pytest.raises(OptionError, match=message):
        clm.prepare(**{"train_file": f"{sources}/*", "output_dir": "part", **OPTIONS, **options})
