"""A suite has the tests that apply to its backend, and no other; what fails in one says why."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest

import clm_core.testing
from clm_core.testing.applying import comparable, leave_out, takes


@pytest.mark.parametrize(
    ("incomparable", "unsupported", "stays"),
    [(None, [], True), (None, ["freeze"], False), ("another model", [], False), ("another model", ["freeze"], False)],
)
def test_a_test_that_is_marked_twice_is_for_the_backends_of_both_marks(incomparable, unsupported, stays):
    class Suite:
        backend = SimpleNamespace(incomparable=incomparable, unsupported=dict.fromkeys(unsupported, "it cannot"))

        @comparable
        @takes("freeze")
        def test_something(self):
            pass

    leave_out(Suite)
    assert (Suite.test_something is not None) == stays


@pytest.mark.parametrize(
    "file", sorted(Path(clm_core.testing.__file__).parent.glob("[!_]*.py")), ids=lambda it: it.stem
)
def test_pytest_says_what_differed_in_every_file_of_the_suite(file):
    module = importlib.import_module(f"clm_core.testing.{file.stem}")
    assert type(module.__loader__).__name__ == "AssertionRewritingHook"
