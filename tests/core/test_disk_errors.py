"""Errors of a disk: known whatever library raises them; explained with the path, what was needed and what is free."""

import errno
import os
import re

import pytest
from safetensors import SafetensorError

from clm_core.durable import remove
from clm_core.durable.disk_errors import is_disk_error, is_disk_full, shown, writing
from clm_core.errors import DiskError, DiskFullError, ModelError, OutputError


def of_system(number, *name):
    return OSError(number, os.strerror(number), *name)


FULL = [
    of_system(errno.ENOSPC),
    of_system(errno.EDQUOT, "x"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    Exception("No space left on device"),
    RuntimeError("[enforce fail at inline_container.cc:783] . PytorchStreamWriter failed writing file data/0"),
    OSError("Can't synchronously write data (errno = 28, error message = 'No space left on device')"),
]
OTHERS = [
    of_system(errno.EIO),
    of_system(errno.EROFS),
    of_system(errno.EFBIG),
    PermissionError(errno.EACCES, "Permission denied"),
    SafetensorError("Error while serializing: I/O error: Permission denied (os error 13)"),
    SafetensorError('Error while serializing: IoError(Os { code: 5, kind: Uncategorized, message: "..." })'),
    RuntimeError("PERMISSION_DENIED: x; Permission denied"),
]
NONE = [ValueError("odd"), of_system(errno.ENOENT), KeyError("exp_avg"), SafetensorError("no such file (os error 2)")]


@pytest.mark.parametrize(
    ("errors", "of_disk", "full"), [(FULL, True, True), (OTHERS, True, False), (NONE, False, False)]
)
def test_an_error_of_a_disk_is_known_by_its_number_or_by_what_a_library_says(errors, of_disk, full):
    assert {(is_disk_error(error), is_disk_full(error)) for error in errors} == {(of_disk, full)}


def test_it_is_known_under_the_errors_that_it_led_to():
    error = OutputError("cannot write x")
    error.__context__ = of_system(errno.ENOSPC)
    assert is_disk_full(error)


def explained(error, *given, **more):
    with pytest.raises(DiskError) as caught, writing(*given, **more):
        raise error
    return caught.value


def test_a_full_disk_is_explained_with_what_was_needed_and_what_is_free(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "model.safetensors").write_bytes(bytes(1000))
    error = explained(FULL[2], tmp_path / "checkpoint-4", temporary=tmp_path / "new", needs=lambda: 2500)
    assert isinstance(error, DiskFullError)
    assert f"the disk is full: {tmp_path / 'checkpoint-4'}: free some space" in str(error)
    assert re.search(r" \(2\.5 kB are needed, [\d.]+ [kMGTP]B are free\)$", str(error))
    assert "(more than 1 kB are needed, " in str(explained(FULL[0], tmp_path / "x", temporary=tmp_path / "new"))


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.EDQUOT, "your quota is used up"), (errno.EIO, "fails"), (errno.EROFS, "make it writable")],
)
def test_each_error_of_a_disk_says_what_to_do(tmp_path, number, says):
    assert says in str(explained(of_system(number), tmp_path / "x"))


def test_a_file_elsewhere_is_named_where_its_disk_is_full(tmp_path):
    assert "the disk is full: /elsewhere/x: free" in str(
        explained(of_system(errno.ENOSPC, "/elsewhere/x"), tmp_path / "y")
    )


@pytest.mark.parametrize("error", [of_system(errno.EACCES, "/elsewhere/x"), ModelError("it cannot be read"), *NONE])
def test_what_cannot_be_read_meanwhile_is_no_error_of_the_disk(tmp_path, error):
    if isinstance(error, ModelError):
        error.__cause__ = of_system(errno.EACCES)
    with pytest.raises(type(error)) as caught, writing(tmp_path / "x"):
        raise error
    assert caught.value is error


def test_a_name_alone_is_that_of_a_file_in_a_folder_that_is_removed(tmp_path):
    assert "x cannot be written" in str(explained(of_system(errno.EIO, "model.safetensors"), tmp_path / "x"))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_file_that_is_there_already_and_refuses_is_the_one_that_is_named(tmp_path, number):
    (file := tmp_path / "run.yaml").touch()
    for error in (of_system(number, str(file)), OSError(number, "refused", ".tmp-1", None, str(file))):
        said = explained(error, tmp_path / "results.json")
        assert str(said).startswith(f"{file} cannot be written: {os.strerror(number)}: make it writable (")
    inside = of_system(number, str(file))
    assert "checkpoint-2 cannot be written" in str(explained(inside, tmp_path / "checkpoint-2", temporary=tmp_path))


def test_a_folder_that_is_gone_is_an_error_of_its_disk(tmp_path):
    assert "not there any more" in str(explained(of_system(errno.ENOENT), tmp_path / "run" / "checkpoint-2"))


def test_a_folder_that_it_is_written_in_and_that_is_gone_is_named(tmp_path):
    error = of_system(errno.ENOENT, str(tmp_path / ".model-1" / "config.json"))
    said = explained(error, tmp_path, within=tmp_path, temporary=tmp_path / ".model-1")
    assert f"{tmp_path / '.model-1'} cannot be written: it was removed" in str(said)
    with pytest.raises(FileNotFoundError), writing(tmp_path, within=tmp_path, temporary=tmp_path):
        raise error


def test_sizes_have_three_digits():
    assert [shown(size) for size in (0, 999, 1000, 999_499, 999_500, 1.25e9)] == [
        *("0 bytes", "999 bytes", "1 kB", "999 kB", "1 MB", "1.25 GB")
    ]


def test_a_folder_that_cannot_be_removed_is_named(tmp_path, monkeypatch):
    def fail(name, **more):
        raise of_system(errno.EIO, name)

    (old := tmp_path / "checkpoint-2").mkdir()
    (old / "config.json").touch()
    monkeypatch.setattr(os, "unlink", fail)
    with pytest.raises(DiskError, match="checkpoint-2 cannot be written"), writing(old):
        remove(old)


def test_a_disk_that_has_space_and_takes_no_more_files_says_so(tmp_path, monkeypatch):
    found = list(os.statvfs(tmp_path))
    found[5], found[7] = 1000, 0  # Its inodes, and those that are free.
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(found))
    with (
        pytest.raises(DiskFullError, match=r"takes no more files: .*/x: remove some, or choose"),
        writing(tmp_path / "x"),
    ):
        raise of_system(errno.ENOSPC)
