"""Prepared data on disk: whole or not there, found again, never mixed up, and safe from a second process."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import clm_core as clm
from clm_core import sample
from clm_core.config import PrepareConfig
from clm_core.data import preparation
from clm_core.data.preparation import Preparation
from clm_core.data.prepared import Prepared
from clm_core.errors import DataError, ModelError, OutputError

PREPARE = """
import clm_core as clm
done = clm.prepare(train_file='corpus.jsonl', tokenizer_name='sample', block_size=16)
print(done.folder, done.reused)
"""
KILLED = """
import os
from clm_core.screen.progress import Progress
class Deadly(Progress):
    def advance(self, count=1): os.kill(os.getpid(), 9)
    def note(self, text): pass
    def bar(self, *about):
        from contextlib import nullcontext
        return nullcontext(self)
import clm_core as clm
clm.prepare(train_file='corpus.jsonl', tokenizer_name='sample', block_size=16, progress=Deadly())
"""

KILLED_AT_EACH_WRITE = """
import os, sys
from pathlib import Path
import datasets, filelock, transformers
import clm_core as clm
from clm_core.config import PrepareConfig
from clm_core.errors import DataError
from clm_core.data.preparation import Preparation, prepare

WRITES = {"os.link", "os.mkdir", "os.rename", "os.chmod", "os.remove", "os.rmdir"}
left = None
def die(event, arguments):
    global left
    if left is not None and (event in WRITES or (event == "open" and arguments[1] not in (None, "r", "rb"))):
        left -= 1
        if not left:
            os._exit(9)
sys.addaudithook(die)

tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
recipe = Preparation.make(PrepareConfig(train_file=("corpus.jsonl",)), tokenizer)
deaths = 0
while True:
    process = os.fork()
    if not process:
        left = deaths + 1
        prepare(recipe, Path("ready"), overwrite=True)
        os._exit(0)
    died = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    try:
        clm.Prepared.open(Path("ready")).verify()
        whole = True
    except DataError as error:
        assert "contains no prepared data" in str(error), error
        whole = False
    print(died, whole)
    if not died:
        break
    deaths += 1
"""


@pytest.fixture
def prepare(corpus):
    return lambda **options: clm.prepare(
        **{"train_file": corpus, "tokenizer_name": "sample", "block_size": 16, **options}
    )


@pytest.fixture
def recipe(corpus, tokenizer):
    return Preparation.make(PrepareConfig(train_file=(str(corpus),)), tokenizer)


def names(folder):
    """What is in a folder, but for the locks."""
    return sorted(path.name for path in folder.iterdir() if path.name not in (".locks", "cache"))


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
    assert names(folder) == ["manifest.json", "train.bin", "train.ends", "val.bin", "validation.bin", "validation.ends"]
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
    with pytest.raises(ModelError, match="a different tokenizer"):
        train(train_file=[], prepared=folder, tokenizer_name=tmp_path / "other")


def test_the_identity_of_the_tokenizer_is_the_same_in_every_version(tokenizer):
    expected = "cdf418a9b565332d296c2ef20cdd6ce29a91336938ac683348b80d838b73c575"
    assert preparation.digest_tokenizer(tokenizer) == expected


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("manifest.json", None, "contains no prepared data"),
        ("manifest.json", b"{", "is damaged"),
        ("manifest.json", b"[]", "is damaged"),
        ("manifest.json", b'"text"', "is damaged"),
        ("manifest.json", b'{"format": 99}', "has format 99, but this version reads 2"),
        ("train.bin", None, "has 0 bytes, but"),
        ("train.bin", b"ab", "has 2 bytes, but"),
        ("validation.ends", b"ab", "has 2 bytes, but"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(prepare, train, file, content, message):
    folder = prepare(output_dir="ready").folder
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(DataError, match=message):
        train(train_file=[], prepared=folder)


@pytest.mark.parametrize("where", [{}, {"output_dir": "ready"}], ids=["cache", "folder"])
@pytest.mark.parametrize("file", ["train.bin", "validation.ends"])
def test_a_flipped_byte_is_found_and_mended_by_preparing_again(prepare, where, file):
    folder = prepare(**where).folder
    before = (folder / file).read_bytes()
    (folder / file).write_bytes(before[:9] + bytes([before[9] ^ 1]) + before[10:])
    assert not prepare(**where).reused
    assert (folder / file).read_bytes() == before
    assert prepare(**where).reused


def test_a_training_on_a_folder_with_a_flipped_byte_is_refused(prepare, train):
    folder = prepare(output_dir="ready").folder
    content = bytearray((folder / "train.bin").read_bytes())
    content[9] ^= 1
    (folder / "train.bin").write_bytes(content)
    with pytest.raises(DataError, match=r"train\.bin does not match its checksum: prepare again"):
        train(train_file=[], prepared=folder)


@pytest.mark.parametrize("file", ["manifest.json", "train.bin"])
def test_a_damaged_cache_is_mended(prepare, file):
    folder = prepare().folder
    (folder / file).write_bytes(b"ab")
    assert not prepare().reused
    assert prepare().folder == folder


@pytest.mark.parametrize("first", [True, False])
def test_the_other_policy_for_eos_is_copied_and_equals_what_would_be_tokenized(prepare, monkeypatch, first):
    tokenized = prepare(append_eos=not first, output_dir="ready").folder
    prepare(append_eos=first)
    monkeypatch.setattr(preparation, "tokenize", None)
    copied = prepare(append_eos=not first).folder
    for name in ("train.bin", "train.ends", "validation.bin", "validation.ends", "manifest.json"):
        assert (copied / name).read_bytes() == (tokenized / name).read_bytes()


def test_a_folder_with_other_prepared_data_is_kept_unless_it_may_be_overwritten(prepare):
    folder = prepare(output_dir="ready").folder
    with pytest.raises(
        OutputError, match="contains other prepared data: choose another folder, or give --overwrite-cache"
    ):
        prepare(output_dir="ready", seed=1)
    assert Prepared.open(folder).manifest.options["seed"] == 42
    prepare(output_dir="ready", seed=1, overwrite_cache=True)
    assert Prepared.open(folder).manifest.options["seed"] == 1


@pytest.mark.parametrize("stranger", ["manifest.json", "notes.txt"])
def test_a_file_that_is_not_of_prepared_data_is_never_deleted(prepare, tmp_path, stranger):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.json").write_text("{}")
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    with pytest.raises(OutputError, match="contains more than prepared data"):
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
    again = prepare()
    assert not again.reused
    assert names(tmp_path / "cache") == [again.folder.name]


def test_death_at_any_write_leaves_nothing_that_counts_and_the_next_start_cleans_up(corpus, tmp_path):
    start = [sys.executable, "-W", "ignore", "-c", KILLED_AT_EACH_WRITE, sample.TOKENIZER]
    printed = subprocess.run(start, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(printed) > 8
    assert set(printed[:-1]) == {"9 False"}
    assert printed[-1] == "0 True"
    assert names(tmp_path) == ["corpus.jsonl", "ready"]


def test_the_next_start_removes_what_a_killed_preparation_of_other_data_left(prepare, tmp_path):
    subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, capture_output=True, check=False)
    other = prepare(seed=7)
    assert names(tmp_path / "cache") == [other.folder.name]


def test_the_next_start_leaves_a_preparation_that_is_still_at_work(prepare, tmp_path):
    from clm_core.data.cache import filling, locked

    target = tmp_path / "cache" / "slow"
    with locked(target), filling(target) as folder:
        prepare()
        assert folder.is_dir()


def test_two_processes_that_prepare_the_same_at_once_both_end_well(corpus, tmp_path):
    start = [sys.executable, "-W", "ignore", "-c", PREPARE]
    both = [subprocess.Popen(start, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate()[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(reused for _, reused in printed) == ["False", "True"]
    assert printed[0][0] == printed[1][0]
    assert len(names(tmp_path / "cache")) == 1


def test_a_tokenizer_in_the_form_of_gpt2_is_read_alike_from_its_two_files(tokenizer, tmp_path):
    from clm_core.config import TokenizerOptions
    from clm_core.models.tokenizers import load_tokenizer

    model = json.loads((sample.TOKENIZER / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (tmp_path / "bare" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    bare = load_tokenizer(TokenizerOptions(tokenizer_name=str(tmp_path / "bare")))
    assert bare("Why is the sky blue?")["input_ids"] == tokenizer("Why is the sky blue?")["input_ids"]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077], ids=oct)
def test_others_may_read_prepared_data_as_the_umask_lets_them_read_all_else(prepare, umask):
    before = os.umask(umask)
    try:
        folder = prepare(output_dir="ready").folder
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o777 & ~umask
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666 & ~umask}


@pytest.mark.parametrize("links", [True, False])
def test_nanogpt_finds_the_tokens_of_both_splits(prepare, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *paths, **more: (_ for _ in ()).throw(PermissionError("no links here")))
    folder = prepare(output_dir="ready").folder
    prepared = Prepared.open(folder)
    for split, name in (("train", "train.bin"), ("validation", "val.bin")):
        read = np.memmap(folder / name, dtype=np.uint16, mode="r")  # As its train.py does.
        assert np.array_equal(read, prepared.tokens(split))
    assert (folder / "val.bin").samefile(folder / "validation.bin") == links
    assert prepare(output_dir="ready").reused


def test_a_copy_for_nanogpt_that_is_damaged_is_noticed(prepare):
    folder = prepare(output_dir="ready").folder
    (folder / "val.bin").unlink()
    (folder / "val.bin").write_bytes(b"other tokens")
    with pytest.raises(DataError, match=r"val\.bin does not match its checksum"):
        Prepared.open(folder).verify()
    assert not prepare(output_dir="ready").reused


def test_tokens_that_nanogpt_would_misread_have_no_name_for_it(prepare, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "large")
    content = json.loads((tmp_path / "large" / "tokenizer.json").read_text())
    content["model"]["vocab"] |= {f"never {number}": number for number in range(2048, 2**16 + 1)}
    (tmp_path / "large" / "tokenizer.json").write_text(json.dumps(content))
    folder = prepare(output_dir="ready", tokenizer_name=tmp_path / "large").folder
    assert Prepared.open(folder).manifest.dtype == "<u4"
    assert "val.bin" not in names(folder)
