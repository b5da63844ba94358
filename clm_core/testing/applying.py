"""Which tests of the contract apply to a backend, by what it declares; a suite does not have the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from clm_core.backend import Backend

Test = TypeVar("Test", bound=Callable[..., None])


def where(applies: Callable[[Backend], bool]) -> Callable[[Test], Test]:
    """A test for the backends of which this holds, as well as what it was marked with before."""

    def mark(test: Test) -> Test:
        before = getattr(test, "applies", lambda backend: True)
        test.applies = lambda backend: before(backend) and applies(backend)  # type: ignore[attr-defined]
        return test

    return mark


comparable = where(lambda backend: backend.incomparable is None)
"""A test for backends that compute the model that its configuration describes."""

incomparable = where(lambda backend: backend.incomparable is not None)
"""A test that recorded numbers make superfluous elsewhere."""


def takes(*options: str) -> Callable[[Test], Test]:
    """A test for the backends that take these options."""
    return where(lambda backend: not set(options) & set(backend.unsupported))


def leave_out(suite: type[Any]) -> None:
    """Take from a suite the tests that do not apply to its `backend`: pytest collects nothing that is None."""
    for name in dir(suite):
        applies = getattr(getattr(suite, name), "applies", None)
        if applies and not applies(suite.backend):
            setattr(suite, name, None)
