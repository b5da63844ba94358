"""Lazy exports: names of a package that are imported on first use, so that importing it costs nothing."""

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:  # This module is the first to be imported; until the last of them is, Ctrl-C shows a traceback.
    from collections.abc import Callable, Mapping
    from typing import Any


def lazy_names(
    package: str, homes: "Mapping[str, str]", quiet: "Callable[[], None]" = lambda: None
) -> "tuple[Callable[[str], Any], Callable[[], list[str]]]":
    """A package's `__getattr__` and `__dir__`, for names that live in its modules (PEP 562).

    `quiet` is called before a framework is imported for one of them; the module `backend` imports none.
    """

    def get(name: str) -> "Any":
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if homes[name] != "backend":
            quiet()
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return get, lambda: sorted(homes)
