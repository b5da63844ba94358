"""Sums of files: every damage to a folder is named, and a record shows whether it was changed."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.durable.checksums import faults, is_sealed, list_files, seal

DAMAGES = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
    "flipped": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 0x40]) + path.read_bytes()[1:]),
    "appended": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "swapped": lambda path: path.write_bytes(path.with_name("other").read_bytes()),
    "linked": lambda path: (path.rename(path.with_name("moved")), path.symlink_to("moved")),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "weights").write_bytes(os.urandom(1000))
    (tmp_path / "other").write_bytes(os.urandom(1000))
    (tmp_path / ".hidden").touch()
    (tmp_path / "logs").mkdir()
    return tmp_path


def test_a_folder_that_nobody_touched_has_no_faults(folder):
    listed = list_files(folder)
    assert sorted(listed) == ["other", "weights"]
    assert faults(folder, listed) == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_no_other(folder, damage):
    listed = list_files(folder)
    DAMAGES[damage](folder / "weights")
    (found,) = faults(folder, listed)
    assert found.startswith("weights ")


def test_a_file_outside_of_the_folder_is_not_one_of_it(folder):
    listed = list_files(folder)
    inner = folder / "logs"
    assert faults(inner, {"../weights": listed["weights"]}) == [
        "../weights is a link or a path, not a file of the folder"
    ]


records = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.booleans(), max_size=4)


@given(records, records)
def test_a_sealed_record_is_known_again_and_no_other_is(record, other):
    assert is_sealed(seal(record))
    assert is_sealed({**other, "sha256": seal(record)["sha256"]}) == (
        {**other, "sha256": 0} == {**record, "sha256": 0}
        and list(map(type, other.values())) == list(map(type, record.values()))
    )
