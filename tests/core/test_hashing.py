"""What is hashed while it is written has the SHA-256 of what is on the disk, or is read again."""

import errno
import hashlib
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.durable import hashing
from clm_core.durable.checksums import list_files
from clm_core.durable.tensors import write_tensors

WEIGHTS = {"wte": np.arange(1000, dtype=np.float32)}


@pytest.fixture
def read(monkeypatch):
    """The names of the files that were read to be hashed."""
    names, really = [], hashing.sha256
    monkeypatch.setattr(hashing, "sha256", lambda file: names.append(file.name) or really(file))
    return names


@given(st.lists(st.binary(max_size=40), max_size=8), st.sampled_from([1, 16, 2**26]))
def test_a_file_is_what_was_written_whatever_its_parts_and_however_often_it_is_synced(tmp_path_factory, parts, every):
    file = tmp_path_factory.mktemp("written") / "file"
    with pytest.MonkeyPatch.context() as patch, hashing.hashed_while_written(file) as out:
        patch.setattr(hashing, "SYNC_EVERY", every)
        for part in parts:
            out.write(part)
    assert file.read_bytes() == b"".join(parts)
    assert hashing.taken(file) == hashlib.sha256(b"".join(parts)).hexdigest()


def test_tensors_are_not_read_again_to_be_listed(tmp_path, read):
    write_tensors(tmp_path / "weights", WEIGHTS)
    listed = list_files(tmp_path)
    assert read == []
    assert listed["weights"]["sha256"] == hashing.sha256(tmp_path / "weights")


def test_the_files_of_a_folder_are_hashed_and_synced_beside_what_is_written(tmp_path, read, monkeypatch):
    synced = []
    monkeypatch.setattr(hashing, "sync_file", synced.append)
    (tmp_path / "logs").mkdir()
    for name in ("config.json", "logs/log"):
        (tmp_path / name).write_text(name)
    with hashing.hashed_beside(tmp_path):
        (tmp_path / "later").write_text("later")
    assert sorted(synced) == [tmp_path / "config.json", tmp_path / "logs" / "log"]
    list_files(tmp_path)
    assert sorted(read) == ["config.json", "later", "log"]


def rewrite(file):
    file.write_bytes(file.read_bytes()[::-1])


def replace(file):
    file.rename(file.with_name("earlier"))
    file.write_bytes(file.with_name("earlier").read_bytes()[::-1])


def grow(file):
    with file.open("ab") as more:
        more.write(b"more")


@pytest.mark.parametrize("change", [rewrite, replace, grow])
def test_a_file_that_was_changed_since_is_read(tmp_path, change):
    file = tmp_path / "weights"
    write_tensors(file, WEIGHTS)
    change(file)
    os.utime(file, ns=(0, 0))  # Changes that follow each other at once can have the same time.
    assert list_files(tmp_path, ["weights"])["weights"]["sha256"] == hashing.sha256(file)


def test_a_disk_that_fails_to_sync_a_part_is_heard_though_it_says_so_once(tmp_path, monkeypatch):
    errors = [OSError(errno.EIO, "Input/output error")]
    monkeypatch.setattr(hashing, "SYNC_EVERY", 1)
    monkeypatch.setattr(os, "fsync", lambda descriptor: errors and (_ for _ in ()).throw(errors.pop()))
    with pytest.raises(OSError, match="Input/output"), hashing.hashed_while_written(tmp_path / "weights") as out:
        out.write(b"1")
    assert hashing.taken(tmp_path / "weights") is None


@pytest.mark.parametrize("failing", ["os.fsync", "hashlib.file_digest"])
def test_a_disk_that_fails_beside_the_writing_is_heard_though_it_says_so_once(failing, tmp_path, monkeypatch):
    errors = [OSError(errno.EIO, "Input/output error")]
    (tmp_path / "model").write_text("model")
    monkeypatch.setattr(failing, lambda *given: errors and (_ for _ in ()).throw(errors.pop()))
    with pytest.raises(OSError, match="Input/output"), hashing.hashed_beside(tmp_path):
        pass
