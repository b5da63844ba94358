"""What libraries write past Python is kept from the person, and shown only with an error that nobody foresaw."""

import os
import sys

import pytest

from clm_core.errors import ModelError
from clm_core.screen.quiet import hushed, silenced


def make_noise():
    os.write(1, b"noise of Rust\n")
    os.write(2, b"noise of C++\n")


def test_the_person_sees_what_is_for_them_and_no_noise(capfd):
    with hushed(verbose=False) as stream:
        make_noise()
        print("step 1", file=stream)
        print("a bar", file=sys.stderr)
    assert capfd.readouterr() == ("", "step 1\na bar\n")


def test_afterwards_everything_goes_where_it_went_before(capfd):
    with hushed(verbose=False):
        pass
    make_noise()
    print("more", file=sys.stderr)
    assert capfd.readouterr() == ("noise of Rust\n", "noise of C++\nmore\n")


def test_who_wants_to_see_the_noise_sees_it(capfd):
    with hushed(verbose=True) as stream:
        make_noise()
        print("step 1", file=stream)
    assert capfd.readouterr() == ("noise of Rust\n", "noise of C++\nstep 1\n")


def fail(error):
    make_noise()
    raise error


def test_an_error_that_nobody_foresaw_says_what_was_written_before(capfd):
    with pytest.raises(ZeroDivisionError) as caught, hushed(verbose=False):
        fail(ZeroDivisionError())
    (note,) = caught.value.__notes__
    assert note.endswith(":\nnoise of Rust\nnoise of C++\n")


def test_an_error_that_a_person_can_act_on_says_itself_what_it_has_to(capfd):
    with pytest.raises(ModelError) as caught, hushed(verbose=False):
        fail(ModelError("no such model"))
    assert not hasattr(caught.value, "__notes__")


def test_where_no_file_can_be_written_the_noise_is_kept_away_all_the_same(capfd, monkeypatch):
    def full(*given):
        raise OSError("No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with hushed(verbose=False) as stream:
        make_noise()
        print("step 1", file=stream)
    assert capfd.readouterr() == ("", "step 1\n")


def test_nothing_is_heard_of_an_import_that_is_silenced(capfd):
    with silenced():
        os.write(2, b"noise of C++\n")
    os.write(2, b"more\n")
    assert capfd.readouterr() == ("", "more\n")
