"""The package is light until it is used, and complete."""

import subprocess
import sys

import pytest

import clm_pt


def test_no_framework_is_imported_for_help():
    code = "import sys, clm_pt, clm_pt.backend; assert not {'torch', 'accelerate', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", clm_pt.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name):
    assert getattr(clm_pt, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        clm_pt.nonsense  # noqa: B018
