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
    for name in ("../weights", str(folder / "weights"), "inner/../../weights", "", "."):
        assert faults(inner, {name: listed["weights"]}) == [f"{name} is not in the folder"]


def test_every_damaged_file_is_named_whatever_the_others_are(folder):
    listed = list_files(folder)
    DAMAGES["cut off"](folder / "weights")
    DAMAGES["flipped"](folder / "other")
    assert faults(folder, listed) == [
        "other does not match its checksum",
        "weights does not match its checksum (999 bytes instead of 1,000)",
    ]


@pytest.mark.parametrize("content", [b"", b"moved"])
def test_a_link_is_as_good_as_its_content_where_links_are_allowed(folder, content):
    listed = list_files(folder)
    DAMAGES["linked"](folder / "weights")
    assert faults(folder, listed, links=True) == []
    (folder / "moved").write_bytes(content)
    assert faults(folder, listed, links=True) == [
        f"weights does not match its checksum ({len(content)} bytes instead of 1,000)"
    ]


@pytest.mark.parametrize("entry", [None, {}, {"size": "large"}, {"size": 1000}, [1000, ""]], ids=str)
def test_a_file_that_is_listed_without_its_sums_is_named(folder, entry):
    assert faults(folder, {"weights": entry}) == ["weights is listed without its size and SHA-256"]


@pytest.mark.parametrize("listed", [None, [], "weights", 7], ids=str)
def test_a_record_that_lists_no_files_proves_nothing(folder, listed):
    assert faults(folder, listed) == ["no file is listed with its size and SHA-256"]


def test_a_file_that_the_disk_does_not_give_is_named(folder, monkeypatch):
    def fail(*given):
        raise OSError(5, "Input/output error")

    listed = list_files(folder)
    monkeypatch.setattr("hashlib.file_digest", fail)
    assert faults(folder, listed)[1] == "weights cannot be read: Input/output error"


def test_what_each_file_needs_besides_is_done_and_what_fails_there_is_raised(folder):
    seen = []
    list_files(folder, each=seen.append)
    assert sorted(seen) == [folder / "other", folder / "weights"]
    with pytest.raises(ZeroDivisionError):
        list_files(folder, each=lambda file: 1 / 0)


def test_a_file_in_a_folder_of_the_folder_is_proved_too_and_not_through_a_link(folder):
    (folder / "logs" / "state").write_bytes(b"moments")
    listed = list_files(folder)
    assert sorted(listed) == ["logs/state", "other", "weights"]
    assert faults(folder, listed) == []
    (folder / "logs").rename(folder / "moved")
    (folder / "logs").symlink_to("moved")
    assert faults(folder, listed) == ["logs/state is a link, not the file that was written"]
    assert faults(folder, listed, links=True) == []


records = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.booleans(), max_size=4)


@given(records, records)
def test_a_sealed_record_is_known_again_and_no_other_is(record, other):
    assert is_sealed(seal(record))
    assert seal(seal(record)) == seal(record)
    assert is_sealed({**other, "sha256": seal(record)["sha256"]}) == (
        {**other, "sha256": 0} == {**record, "sha256": 0}
        and list(map(type, other.values())) == list(map(type, record.values()))
    )
