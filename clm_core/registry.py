"""Backends by name: found by entry point, checked for their requirements, chosen."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from clm_core.errors import BackendError, did_you_mean, similar

if TYPE_CHECKING:  # Not needed to print the help, which is not to wait for them.
    from importlib.metadata import EntryPoint

    from packaging.requirements import Requirement

    from clm_core.backend import Backend

GROUP = "clm.backends"
VARIABLE = "CLM_BACKEND"
SHORT = 0.3
"""How similar a name is to that of a backend that may be meant: `tf` is two letters of `tensorflow`."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """A backend of an installed distribution, and whether it can run."""

    name: str
    distribution: str
    backend: Backend | None
    load_error: str | None = None

    @cached_property
    def problem(self) -> str | None:
        """Why it cannot run: what is missing, with the command that installs it. Help has no need to find out."""
        return self.load_error if self.backend is None else _missing(self.backend)


def list_backends() -> list[Status]:
    """All backends that are known here, usable or not: by name, after those that come first."""
    found = sorted(map(_status, _entry_points().values()), key=lambda status: status.name)
    return sorted(found, key=lambda status: not (status.backend and status.backend.comes_first))


def get_backend(name: str | None = None, *, elsewhere: bool = False) -> Backend:
    """The backend of this name, or of the variable CLM_BACKEND, or the only one that can run here.

    One that is to run `elsewhere`, with another interpreter, need not be able to run here.

    Raises:
        BackendError: there is no such backend, it cannot run here, or there are several to choose from.
    """
    name = name or os.environ.get(VARIABLE) or None
    if name is None:
        return _only_usable(list_backends())
    points = _entry_points()
    if name not in points:
        raise BackendError(_unknown(name, list_backends()))
    status = _status(points[name])
    if status.backend is None or (status.problem and not elsewhere):
        raise BackendError(f"backend {name} cannot run here: {status.problem}{_instead(status.backend)}")
    return status.backend


def backends_with(model_type: str) -> list[str]:
    """The names of the backends that are known to have a model of this type."""
    return [backend.name for backend in _loaded() if backend.has_model(model_type)]


def command_with(name: str | None = None) -> str:
    """How a command starts that needs a backend: with this one, or with any if there are several."""
    if name is None and not os.environ.get(VARIABLE):
        ready = [status.name for status in list_backends() if not status.problem]
        name = ready[0] if len(ready) > 1 else None
    return f"clm --backend {name}" if name else "clm"


def unmet(requirements: Sequence[str]) -> list[str]:
    """Those of the requirements, as in pyproject.toml, that are not met here, each with what there is instead."""
    from packaging.requirements import Requirement

    return [found for line in requirements if (found := _unmet(Requirement(line)))]


def _loaded() -> list[Backend]:
    return [status.backend for status in list_backends() if status.backend]


def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=GROUP)}


def _status(point: EntryPoint) -> Status:
    distribution = point.dist.name if point.dist else "?"
    try:
        return Status(name=point.name, distribution=distribution, backend=point.load()())
    except Exception as error:  # Third-party code, which must not break the help or the other backends.
        reason = f"{point.value} of {distribution} does not load: {type(error).__name__}: {error}"
        return Status(name=point.name, distribution=distribution, backend=None, load_error=reason)


def _missing(backend: Backend) -> str | None:
    wrong = unmet(backend.requires)
    return f"it needs {', '.join(wrong)}: {_way(backend)}" if wrong else None


def _way(backend: Backend) -> str:
    from clm_core.installation import install_line

    return install_line(backend.install)


def _unmet(requirement: Requirement) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement} (not installed)"
    return None if requirement.specifier.contains(installed, prereleases=True) else f"{requirement} (here: {installed})"


def _instead(backend: Backend | None) -> str:
    """Which backends can use a version that is installed here, and that this one cannot."""
    from importlib.metadata import version

    from packaging.requirements import Requirement

    for wanted in map(Requirement, backend.requires if backend else ()):
        if _unmet(wanted) and (names := [other.name for other in _loaded() if _can_use(other, wanted.name)]):
            return f"; --backend {' or '.join(names)} can use {wanted.name} {version(wanted.name)}"
    return ""


def _can_use(backend: Backend, distribution: str) -> bool:
    from packaging.requirements import Requirement

    return any(line.name == distribution and not _unmet(line) for line in map(Requirement, backend.requires))


def _only_usable(found: list[Status]) -> Backend:
    usable = [status.backend for status in found if status.backend and not status.problem]
    if len(usable) == 1:
        return usable[0]
    if usable:
        names = ", ".join(backend.name for backend in usable)
        raise BackendError(f"several backends are installed: choose one of {names} with --backend, or in {VARIABLE}")
    ways = [_way(status.backend) for status in found if status.backend]
    raise BackendError(f"no backend can run yet: {' or '.join(ways) or 'none is installed'}")


def _unknown(name: str, found: list[Status]) -> str:
    near = similar(name, [status.name for status in found], most=2, cutoff=SHORT)
    hint = f"{did_you_mean(*near).removeprefix('; ')} " if near else ""
    ready = ", ".join(status.name for status in found if not status.problem) or "none"
    others = [f"{status.name} ({status.problem})" for status in found if status.problem]
    return f"unknown backend {name!r}: {hint}installed: {ready}" + (
        f"; not ready: {'; '.join(others)}" if others else ""
    )
