"""Prepared data on disk: whole or not there, found again, never mixed up, and safe from a second process."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

import clm_core as clm
from clm_core import preprocessing, sample
from clm_core.config import PrepareConfig
from clm_core.errors import DataError, ModelError, OutputError
from clm_core.prepared import Prepared
from clm_core.preprocessing import Recipe

PREPARE = """
import clm_core as clm
print(clm.prepare(train_file='corpus.jsonl', tokenizer_name='sample', block_size=16).folder)
"""
KILLED = """
import os
from clm_core.progress import Progress
class Deadly(Progress):
    def advance(self, count=1): os.kill(os.getpid(), 9)
    def note(self, text): pass
    def bar(self, *about):
        from contextlib import nullcontext
        return nullcontext(self)
import clm_core as clm
clm.prepare(train_file='corpus.jsonl', tokenizer_name='sample', block_size=16, progress=Deadly())
"""


@pytest.fixture
def prepare(corpus):
    return lambda **options: clm.prepare(
        **{"train_file": corpus, "tokenizer_name": "sample", "block_size": 16, **options}
    )


@pytest.fixture
def recipe(corpus, tokenizer):
    return Recipe.make(PrepareConfig(train_file=(str(corpus),)), tokenizer)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_same_data_are_found_again_and_not_tokenized(prepare):
    first, second = prepare(), prepare()
    assert (first.reused, second.reused) == (False, True)
    assert (first.folder, first.ledger) == (second.folder, second.ledger)


def test_other_block_sizes_and_threads_find_the_same_data(prepare):
    prepare()
    assert prepare(block_size=32).reused
    assert prepare(preprocessing_num_workers=1).reused


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"append_eos": False},
        {"validation_split_percentage": 10},
        {"max_train_samples": 40},
        {"max_eval_samples": 4},
        {"overwrite_cache": True},
    ],
    ids=str,
)
def test_what_decides_the_content_is_prepared_anew(prepare, change):
    prepare()
    assert not prepare(**change).reused


def test_a_change_of_the_text_is_noticed_and_a_change_of_its_name_is_not(prepare, corpus):
    prepare()
    moved = corpus.rename(corpus.with_name("other.jsonl"))
    assert prepare(train_file=moved).reused
    moved.write_text(moved.read_text().replace("blue", "green", 1))
    assert not prepare(train_file=moved).reused


def test_prepared_data_train_the_same_model_as_the_text(train, prepare, tmp_path):
    folder = prepare(output_dir="ready").folder
    assert names(folder) == ["manifest.json", "train.bin", "train.ends", "validation.bin", "validation.ends"]
    from_text, from_folder = train(output_dir="a"), train(output_dir="b", train_file=[], prepared=folder)
    assert from_text.after == from_folder.after


def test_the_blocks_are_a_view_that_cannot_be_written(prepare):
    blocks = Prepared.open(prepare().folder).blocks("train", 16)
    assert isinstance(blocks.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        blocks[0, 0] = 1


def test_data_prepared_with_another_tokenizer_are_refused(prepare, train, tokenizer, tmp_path):
    folder = prepare(output_dir="ready").folder
    tokenizer.save_pretrained(tmp_path / "other")
    config = json.loads((tmp_path / "other" / "tokenizer.json").read_text())
    config["normalizer"] = {"type": "Lowercase"}
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="another tokenizer"):
        train(train_file=[], prepared=folder, tokenizer_name=tmp_path / "other")


def test_the_identity_of_the_tokenizer_is_the_same_in_every_version(tokenizer):
    expected = "2cf032acb19d6c6f61440dce00b6416a36938b9a5573ca2fe4e6824feb13a526"
    assert preprocessing.digest_tokenizer(tokenizer) == expected


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("manifest.json", None, "holds no prepared data"),
        ("manifest.json", b"{", "is damaged"),
        ("manifest.json", b"[]", "is damaged"),
        ("manifest.json", b'"text"', "is damaged"),
        ("manifest.json", b'{"format": 99}', "has format 99, this version reads 1"),
        ("train.bin", None, "has 0 bytes where"),
        ("train.bin", b"ab", "has 2 bytes where"),
        ("validation.ends", b"ab", "has 2 bytes where"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(prepare, train, file, content, message):
    folder = prepare(output_dir="ready").folder
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(DataError, match=message):
        train(train_file=[], prepared=folder)


def test_a_damaged_cache_is_mended_as_the_error_says(prepare):
    folder = prepare().folder
    (folder / "train.bin").write_bytes(b"ab")
    with pytest.raises(DataError, match="prepare again, with --overwrite-cache"):
        prepare()
    assert prepare(overwrite_cache=True).folder == folder
    assert prepare().reused


def test_a_folder_with_other_prepared_data_is_kept_unless_it_may_be_overwritten(prepare):
    folder = prepare(output_dir="ready").folder
    with pytest.raises(OutputError, match="holds other prepared data: choose another folder, or --overwrite-cache"):
        prepare(output_dir="ready", seed=1)
    assert Prepared.open(folder).manifest.options["seed"] == 42
    prepare(output_dir="ready", seed=1, overwrite_cache=True)
    assert Prepared.open(folder).manifest.options["seed"] == 1


@pytest.mark.parametrize("stranger", ["manifest.json", "notes.txt"])
def test_a_file_that_is_not_of_prepared_data_is_never_deleted(prepare, tmp_path, stranger):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.json").write_text("{}")
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    with pytest.raises(OutputError, match="no folder of prepared data"):
        prepare(output_dir="mine", overwrite_cache=True)
    assert (tmp_path / "mine" / stranger).exists()


def test_an_empty_folder_is_filled(prepare, tmp_path):
    (tmp_path / "ready").mkdir()
    assert "manifest.json" in names(prepare(output_dir="ready").folder)


def test_data_that_cannot_be_read_to_the_end_leave_nothing(prepare, corpus, tmp_path):
    with corpus.open("a") as file:
        file.write("{broken\n")
    with pytest.raises(DataError, match="line 61"):
        prepare(output_dir="ready")
    assert names(tmp_path) == ["corpus.jsonl"]


def test_a_killed_preparation_leaves_nothing_that_counts_as_prepared(prepare, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == -9
    left = names(tmp_path / "cache")
    assert left
    assert all(name.startswith(".clm-preparing-") for name in left)
    assert not prepare().reused


def test_what_a_killed_preparation_left_is_removed_later_and_a_live_one_is_not(prepare, tmp_path):
    long_ago = time.time() - 2 * preprocessing.ABANDONED
    for name in ("dead", "live"):
        folder = tmp_path / "cache" / f".clm-preparing-{name}"
        folder.mkdir(parents=True)
        (folder / "train.bin").write_bytes(b"ab")
        os.utime(folder, (long_ago, long_ago))
    os.utime(tmp_path / "cache" / ".clm-preparing-dead" / "train.bin", (long_ago, long_ago))
    prepare()
    assert [name for name in names(tmp_path / "cache") if name.startswith(".")] == [".clm-preparing-live"]


def test_two_processes_that_prepare_the_same_at_once_both_end_well(corpus, tmp_path):
    start = [sys.executable, "-W", "ignore", "-c", PREPARE]
    both = [subprocess.Popen(start, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = {process.communicate()[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(folders) == 1
    assert len(names(tmp_path / "cache")) == 1


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_preparation_that_another_one_overtakes_ends_well(recipe, tmp_path, overwrite):
    overtaking = iter([lambda: preprocessing.prepare(recipe, tmp_path / "ready", overwrite=overwrite)])

    def advance(documents):
        next(overtaking, lambda: None)()

    prepared, _ = preprocessing.prepare(recipe, tmp_path / "ready", overwrite=overwrite, advance=advance)
    assert prepared.blocks("train", 16).size
    assert names(tmp_path) == ["corpus.jsonl", "ready"]


def test_what_another_process_had_put_there_by_the_end_is_not_overwritten(recipe, prepare, tmp_path):
    def advance(documents):
        if not (tmp_path / "ready").exists():
            prepare(output_dir="ready", seed=1)

    with pytest.raises(OutputError, match="other prepared data by now"):
        preprocessing.prepare(recipe, tmp_path / "ready", advance=advance)
    assert Prepared.open(tmp_path / "ready").manifest.options["seed"] == 1


def test_a_tokenizer_in_the_form_of_gpt2_is_read_alike_from_its_two_files(tokenizer, tmp_path):
    from clm_core.config import TokenizerOptions
    from clm_core.pretrained import load_tokenizer

    model = json.loads((sample.TOKENIZER / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (tmp_path / "bare" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    bare = load_tokenizer(TokenizerOptions(tokenizer_name=str(tmp_path / "bare")))
    assert bare("Why is the sky blue?")["input_ids"] == tokenizer("Why is the sky blue?")["input_ids"]
