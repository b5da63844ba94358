"""Who opens a file finds first what it is for: no function for its own use stands before a public one."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path.relative_to(ROOT) for package in ("clm_core", "clm_pt", "clm_tf") for path in ROOT.glob(f"{package}/**/*.py")
)


def needed_at_once(module):
    """The names that are looked up while the module is loaded: in decorators, defaults, bases and constants."""
    inner = {node for function in ast.walk(module) if isinstance(function, ast.FunctionDef) for node in function.body}
    found, waiting = set(), list(module.body)
    while waiting:
        node = waiting.pop()
        found |= {node.id} if isinstance(node, ast.Name) else set()
        waiting += [child for child in ast.iter_child_nodes(node) if child not in inner]
    return found


@pytest.mark.parametrize("file", FILES, ids=str)
def test_public_functions_come_first(file):
    module = ast.parse((ROOT / file).read_text())
    own = [node for node in module.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    last = max((node.lineno for node in own if not node.name.startswith("_")), default=0)
    private = [node for node in own if node.name.startswith("_") and isinstance(node, ast.FunctionDef)]
    assert {node.name for node in private if node.lineno < last} <= needed_at_once(module)
