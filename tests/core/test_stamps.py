"""What was verified is not read again until it changes, by this process or another; and what changed is found."""

import os
import shutil
import subprocess
import sys
import time

import pytest

import clm_core as clm
from clm_core.data import named_files
from clm_core.data.named_files import NamedFiles
from clm_core.durable import hashing, stamps
from clm_core.errors import DataError

DATA = ["train.bin", "train.ends", "validation.bin", "validation.ends"]

TWO_AT_ONCE = """
import os, time
from pathlib import Path
from clm_core.durable import stamps
stamps.SETTLED = 0
def find_out():
    with open("calls", "a") as file:
        file.write("x")
    time.sleep(0.5)
    return "found"
started = os.fork()
assert stamps.once("a test", [Path("data")], find_out) == "found"
if started:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(started, 0)[1]))
"""


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Files count as settled without a wait of seconds; `tick` waits until a change shows in the times of a file."""
    monkeypatch.setattr(stamps, "SETTLED", 0)


def tick():
    time.sleep(0.03)


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data"
    path.write_text("some text")
    tick()
    return path


@pytest.fixture
def found(data):
    """Find something out about the file; the second value says how often it was read for that."""
    calls = []

    def run(what="a test"):
        return stamps.once(what, [data], lambda: calls.append(1) or data.read_text()), len(calls)

    return run


@pytest.fixture
def hashed(monkeypatch):
    """Which of the text and the prepared data was hashed since it was last asked for."""
    names = []
    for module, function in ((hashing, "sha256"), (named_files, "_content")):
        really = getattr(module, function)
        monkeypatch.setattr(module, function, lambda file, really=really: names.append(file.name) or really(file))

    def take():
        taken = sorted(name for name in names if name == "corpus.jsonl" or name in DATA)
        names.clear()
        return taken

    return take


def rewrite(path):
    path.write_text("SOME TEXT")


def replace(path):
    shutil.copy2(path, path.with_name("copy"))
    path.with_name("copy").replace(path)


def change_and_hide(path):
    """A change of content, of the same size, with the old time of modification put back."""
    before = path.stat()
    rewrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_was_found_out_is_known_until_the_cache_forgets(found, tmp_path):
    assert [found(), found(), found("another thing")] == [("some text", 1), ("some text", 1), ("some text", 2)]
    shutil.rmtree(tmp_path / "cache")
    assert found() == ("some text", 3)


@pytest.mark.parametrize("change", [rewrite, replace, change_and_hide, os.utime])
def test_a_file_that_changed_in_any_way_is_read_again(found, data, change):
    found()
    tick()
    change(data)
    assert found() == (data.read_text(), 2)


def test_nothing_is_kept_of_a_file_that_has_changed_just_now(found, monkeypatch):
    monkeypatch.setattr(stamps, "SETTLED", 10**12)
    assert [found(), found()] == [("some text", 1), ("some text", 2)]


def test_nothing_is_kept_of_a_file_that_changes_while_it_is_read(data):
    def find_out():
        rewrite(data)
        return "half"

    assert stamps.once("a test", [data], find_out) == "half"
    assert stamps.once("a test", [data], data.read_text) == "SOME TEXT"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"found": "nonsense"}', b"\xff"])
def test_a_stamp_that_is_damaged_is_none(found, tmp_path, content):
    found()
    (stamp,) = (tmp_path / "cache" / ".stamps").iterdir()
    stamp.write_bytes(content)
    assert [found(), found()] == [("some text", 2), ("some text", 2)]


def test_a_changed_word_of_a_stamp_is_noticed(found, tmp_path):
    found()
    (stamp,) = (tmp_path / "cache" / ".stamps").iterdir()
    stamp.write_text(stamp.read_text().replace("some text", "same text"))
    assert found() == ("some text", 2)


@pytest.mark.parametrize("place", ["cache", "cache/.stamps", "cache/.locks"])
def test_where_the_cache_cannot_be_written_all_is_read_and_nothing_fails(found, tmp_path, place):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()  # No folder can be made there, as on a disk that can only be read.
    first, second = found(), found()
    assert first == ("some text", 1)
    assert second == ("some text", 1 if place == "cache/.locks" else 2)


def test_an_error_is_not_kept(found, data):
    with pytest.raises(ZeroDivisionError):
        stamps.once("a test", [data], lambda: str(1 // 0))
    assert found() == ("some text", 1)


def test_of_two_processes_that_start_at_once_one_reads_and_the_other_waits(data, tmp_path):
    subprocess.run([sys.executable, "-W", "ignore", "-c", TWO_AT_ONCE], cwd=tmp_path, check=True)
    assert (tmp_path / "calls").read_text() == "x"


def test_a_training_does_not_hash_what_an_earlier_start_has_verified(prepare, train, hashed):
    folder = prepare(output_dir="ready").folder
    hashed()
    tick()
    for names in (DATA, []):
        train(train_file=[], prepared=folder)
        assert hashed() == names


def test_nor_the_text_and_the_data_in_the_cache_unless_it_is_to_be_prepared_again(train, hashed, corpus):
    tick()
    for names in (["corpus.jsonl"], DATA, []):
        train()
        tick()
        assert hashed() == names
    train(overwrite_cache=True)
    assert "corpus.jsonl" in hashed()


@pytest.mark.parametrize("file", ["train.bin", "validation.ends", "manifest.json"])
def test_a_byte_that_changed_since_an_earlier_start_is_found_at_the_next(prepare, train, file):
    folder = prepare(output_dir="ready").folder
    tick()
    train(train_file=[], prepared=folder)
    content = bytearray((folder / file).read_bytes())
    content[9] ^= 1
    (folder / file).write_bytes(content)
    with pytest.raises(DataError, match=f"{file} (does not match its checksum|is damaged)"):
        train(train_file=[], prepared=folder)


@pytest.mark.parametrize(
    "check",
    [
        lambda folder, prepare: clm.inspect(folder, verify=True),
        lambda folder, prepare: clm.verify(folder),
        lambda folder, prepare: prepare(output_dir=folder),
        lambda folder, prepare: clm.Prepared.open(folder).verify(),
    ],
    ids=["inspect", "verify", "prepare", "open"],
)
def test_who_asks_for_a_check_gets_a_whole_one(prepare, train, hashed, check):
    folder = prepare(output_dir="ready").folder
    tick()
    train(train_file=[], prepared=folder)
    hashed()
    check(folder, prepare)
    assert {*DATA} <= {*hashed()}


def test_the_order_of_files_and_how_they_are_read_are_part_of_what_is_known(tmp_path):
    layout = named_files.files.Layout()
    paths = [tmp_path / name for name in ("a.jsonl", "b.jsonl")]
    for path in paths:
        path.write_text(path.name)
    tick()
    others = [named_files.files.Layout(text_column="body")]
    found = [
        NamedFiles(listed=listed, own=range(2), layout=how, by_file=by_file).fingerprint()
        for listed in (tuple(paths), tuple(paths[::-1]))
        for how in (layout, *others)
        for by_file in (True, False)
    ]
    assert len({*found}) == 8
