"""Writes the map of the packages into a page, at its marks: `python tests/support/package_map.py CONTRIBUTING.md`."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from clm_core.options.reference import between_marks

ROOT = Path(__file__).parents[2]
PACKAGES = ("clm_core", "clm_pt", "clm_tf")


def insert(page: str) -> str:
    """A page with the map of today between its marks."""
    lines = (line for package in PACKAGES for line in _lines(ROOT / package, depth=0))
    return between_marks(page, "map", "\n".join(["```text", *lines, "```", ""]))


def _lines(package: Path, depth: int) -> Iterator[str]:
    yield _line(f"{package.name}/", package / "__init__.py", depth)
    for path in sorted(package.glob("*.py")):
        if not path.name.startswith("__"):
            yield _line(path.name, path, depth + 1)
    for path in sorted(package.glob("*/__init__.py")):
        yield from _lines(path.parent, depth + 1)


def _line(name: str, file: Path, depth: int) -> str:
    says = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return f"{'  ' * depth + name:26}{says.splitlines()[0]}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(insert(Path(name).read_text(encoding="utf-8")), encoding="utf-8")
