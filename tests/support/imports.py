"""What a file imports, read from its source: at the top and within functions."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@cache
def imported_names(path: Path) -> frozenset[str]:
    """The dotted names that a file imports; `from a import b` is `a.b`, whatever b is."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parent.parts
            above = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return frozenset(found)


def modules(*packages: str) -> dict[str, Path]:
    """The files of packages, by the names of their modules."""
    return {name_of(path): path for package in packages for path in sorted((ROOT / package).rglob("*.py"))}


def name_of(path: Path) -> str:
    """The dotted name of a module."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")
