"""Prepared data is found again, never mixed up, and safe from a death at any write and from a second process."""

import os
import shutil
import subprocess
import sys
from signal import SIGTERM

import pytest
from support.folders import names

from clm_core import sample
from clm_core.data import preparation
from clm_core.data.cache import filling, locked
from clm_core.errors import DataError, Interrupted, OutputError

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


@pytest.mark.parametrize("where", [{}, {"output_dir": "ready"}], ids=["cache", "folder"])
@pytest.mark.parametrize("file", ["train.bin", "validation.ends"])
def test_a_flipped_byte_is_found_and_mended_by_preparing_again(prepare, where, file):
    folder = prepare(**where).folder
    before = (folder / file).read_bytes()
    (folder / file).write_bytes(before[:9] + bytes([before[9] ^ 1]) + before[10:])
    assert not prepare(**where).reused
    assert (folder / file).read_bytes() == before
    assert prepare(**where).reused


@pytest.mark.parametrize("file", ["manifest.json", "train.bin"])
def test_a_damaged_cache_is_mended(prepare, file):
    folder = prepare().folder
    (folder / file).write_bytes(b"ab")
    assert not prepare().reused
    assert prepare().folder == folder


def test_a_cache_without_a_manifest_is_mended_and_a_folder_without_one_is_not_taken(prepare):
    for where, is_taken in (({}, True), ({"output_dir": "ready"}, False)):
        (prepare(**where).folder / "manifest.json").unlink()
        if is_taken:
            assert not prepare(**where).reused
        else:
            with pytest.raises(OutputError, match="more than prepared data: choose another folder"):
                prepare(**where)


def test_a_cache_that_cannot_be_written_gives_what_it_has_and_says_so_of_the_rest(prepare, tmp_path):
    folder = prepare().folder
    shutil.rmtree(folder.parent / ".locks")
    (folder.parent / ".locks").touch()  # No lock can be made there, as on a disk that can only be read.
    assert prepare().reused
    with pytest.raises(OutputError, match="set CLM_CACHE to a folder that can be"):
        prepare(seed=1)


@pytest.mark.parametrize("first", [True, False])
def test_the_other_policy_for_eos_is_copied_and_equals_what_would_be_tokenized(prepare, monkeypatch, first):
    tokenized = prepare(append_eos=not first, output_dir="ready").folder
    prepare(append_eos=first)
    monkeypatch.setattr(preparation, "tokenize", None)
    copied = prepare(append_eos=not first).folder
    for name in ("train.bin", "train.ends", "validation.bin", "validation.ends", "manifest.json"):
        assert (copied / name).read_bytes() == (tokenized / name).read_bytes()


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


def test_a_signal_while_a_failed_preparation_is_removed_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*args, **options):
        monkeypatch.undo()
        os.unlink(*args, **options)
        raise Interrupted(SIGTERM)

    def fail():
        with filling(tmp_path / "ready") as folder:
            for name in ("train.bin", "train.ends"):
                (folder / name).touch()
            monkeypatch.setattr(os, "unlink", interrupted)
            raise DataError("no documents")

    with pytest.raises(Interrupted):
        fail()
    assert not names(tmp_path)


def test_the_next_start_leaves_a_preparation_that_is_still_at_work(prepare, tmp_path):
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
