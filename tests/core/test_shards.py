"""Shards of a preparation: each a deterministic share, and together what one machine would have made."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clm_core as clm
from clm_core.config import PrepareConfig
from clm_core.data import merging
from clm_core.data.manifest import Manifest, write_manifest
from clm_core.data.preparation import Preparation
from clm_core.data.preparation import prepare as prepare_shard
from clm_core.data.prepared import Prepared
from clm_core.data.split_writer import SplitWriter
from clm_core.data.tokenization import Tokens
from clm_core.errors import DataError, OptionError
from clm_core.shards import Shard

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=25)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def shards(corpus):
    """Prepare n shards of the corpus, and return their folders."""

    def run(count, **options):
        given = {"train_file": corpus, "tokenizer_name": "sample", "block_size": 16, **options}
        numbers = range(1, count + 1)
        return [clm.prepare(**given, shard=f"{i}/{count}", output_dir=f"shard-{i}").folder for i in numbers]

    return run


@given(texts=TEXTS, count=st.integers(1, 5), slice_documents=st.integers(1, 4), limit=st.none() | st.integers(1, 9))
@settings(max_examples=40)
def test_the_merged_shards_are_byte_for_byte_the_whole(
    tokenizer, tmp_path_factory, texts, count, slice_documents, limit
):
    folder = tmp_path_factory.mktemp("shards")
    texts = [*texts, *(f"text {number}" for number in range(20))]
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    given = {"train_file": (str(folder / "a.jsonl"),), "validation_split_percentage": 25, "max_train_samples": limit}

    def make(name, shard):
        preparation = Preparation.make(PrepareConfig(**given, shard=shard), tokenizer)
        return prepare_shard(preparation, folder / name, workers=1)[0].folder

    made = [make(f"shard {i}", f"{i}/{count}") for i in range(count, 0, -1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "DOCUMENTS", slice_documents)
        merging.merge(made, folder / "merged", overwrite=False, say=print)
    assert content(folder / "merged") == content(make("whole", None))


def test_the_whole_is_found_in_the_cache_where_shards_were_merged_into_it(shards, corpus):
    clm.prepare(merge=shards(3), block_size=16)
    assert clm.prepare(train_file=corpus, tokenizer_name="sample", block_size=16).reused


def test_merging_twice_merges_once(shards):
    folders = shards(2)
    assert not clm.prepare(merge=folders, output_dir="whole", block_size=16).reused
    assert clm.prepare(merge=folders, output_dir="whole", block_size=16).reused


def test_each_shard_counts_the_documents_of_the_others(shards):
    ledgers = [Prepared.open(folder).ledger(16) for folder in shards(4)]
    used = [sum(split["documents"] for split in ledger["splits"].values()) for ledger in ledgers]
    assert sum(used) == 60
    assert [60 - ledger["documents"]["elsewhere"] for ledger in ledgers] == used


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([0, 1], "of the 3 shards, 3/3 is missing"),
        ([0], "of the 3 shards, 2/3, 3/3 are missing"),
        ([0, 1, 1], "are both shard 2/3"),
    ],
)
def test_all_shards_are_needed_and_each_once(shards, chosen, message, tmp_path):
    folders = shards(3)
    with pytest.raises(DataError, match=message):
        clm.prepare(merge=[folders[place] for place in chosen], output_dir="whole")
    assert not (tmp_path / "whole").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 7, "shard": "2/2"}, "are not shards of the same data: their options differ"),
        ({"shard": "2/4"}, "are not shards of the same data: their options differ"),
        ({"max_train_samples": 9}, "is not a shard of prepared data: `clm prepare --shard` writes shards"),
    ],
)
def test_what_is_not_of_the_same_whole_is_not_merged(shards, corpus, options, message):
    given = {"train_file": corpus, "tokenizer_name": "sample", "block_size": 16}
    other = clm.prepare(**given, **options, output_dir="other").folder
    with pytest.raises(DataError, match=message):
        clm.prepare(merge=[shards(2)[0], other])


def test_a_damaged_shard_is_not_merged(shards):
    folders = shards(2)
    damaged = bytearray((folders[1] / "train.bin").read_bytes())
    damaged[5] ^= 1
    (folders[1] / "train.bin").write_bytes(damaged)
    with pytest.raises(DataError, match=r"shard-2/train\.bin does not match its checksum"):
        clm.prepare(merge=folders)


def test_a_shard_is_not_trained_on_as_if_it_were_the_whole(shards, train):
    with pytest.raises(DataError, match="shard-1 is shard 1/2 of the data: merge all shards with `clm prepare"):
        train(train_file=(), prepared=shards(2)[0])


def test_a_shard_without_documents_of_a_split_can_be_looked_at(shards):
    from clm_core.commands.inspect import inspect
    from clm_core.config import InspectConfig

    found = inspect(shards(30)[29], InspectConfig(split="validation"))
    assert (found.document_lengths["validation"]["longest"], found.block) == (0, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard": "0/4"}, r"shard must be a shard of several, such as 1/4, not '0/4'"),
        ({"shard": "5/4"}, r"shard must be a shard of several"),
        ({"shard": "1/2", "max_train_tokens": 99}, "a shard cannot know how many tokens the others have"),
        ({"merge": ["a"], "seed": 1}, "argument seed: merge takes shards that are prepared already, leave it out"),
    ],
)
def test_what_shards_cannot_follow_is_rejected(options, message):
    with pytest.raises(OptionError, match=message):
        clm.prepare(**options)


@pytest.mark.parametrize("shard_by", ["document", "file"])
def test_the_memory_of_merging_does_not_grow_with_the_shards(tmp_path, monkeypatch, shard_by):
    monkeypatch.setattr(merging, "DOCUMENTS", 500)
    monkeypatch.setattr(merging, "TOKENS", 2**14)
    few, many = (peak_of_merging(tmp_path / str(count), count, 300, shard_by) for count in (2, 40))
    assert few < 1_000_000
    assert many < few + 40 * 10_000  # A manifest is some thousand bytes; the tokens of a shard, 60,000.


def peak_of_merging(folder, count, documents, shard_by):
    """The most memory at a time while `count` shards of documents of 100 tokens are merged."""
    folder.mkdir()
    found = [written_shard(folder / str(i), f"{i}/{count}", documents, shard_by) for i in range(1, count + 1)]
    tracemalloc.start()
    try:
        merging.merge(found, folder / "whole", overwrite=False, say=print)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def written_shard(folder, shard, documents, shard_by):
    folder.mkdir()
    with SplitWriter(folder, "train", dtype="<u2", eos=[]) as writer:
        lengths = np.full(documents, 100, np.int64)
        writer.add(Tokens(np.arange(documents * 100, dtype=np.uint32) % 999, lengths), size=0)
        entry = writer.finish()
    by = {} if shard_by == "document" else {"shard_by": shard_by}
    read = documents * (1 if by else Shard.parse(shard).count)
    manifest = Manifest(
        source={"train": "ab", "validation": None},
        tokenizer="",
        tokenizer_name="",
        engine="",
        vocabulary=999,
        dtype="<u2",
        options={"shard": shard, **by},
        documents_read=read,
        documents_empty=0,
        documents_skipped=0,
        documents_elsewhere=read - documents,
        splits={"train": entry},
    )
    write_manifest(folder, manifest)
    return folder
