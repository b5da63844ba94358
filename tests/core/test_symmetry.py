"""clm_pt and clm_tf have the same job in a file of the same name, and take the same arguments for it."""

import ast
from pathlib import Path

import pytest

import clm_pt
import clm_tf

ROOT = Path(__file__).parents[2]
OWN = {"clm_pt": {"arguments", "auxiliary", "trainer"}, "clm_tf": {"push_to_hub"}}
"""What only one framework needs."""


def files(package):
    return {path.stem: path for path in (ROOT / package).glob("*.py") if path.stem != "__init__"}


def functions(package):
    """Its public functions, with their positional parameters and their defaults."""
    return {
        f"{file}.{node.name}": [*(it.arg for it in node.args.args), *map(ast.unparse, node.args.defaults)]
        for file, path in files(package).items()
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }


PT, TF = functions("clm_pt"), functions("clm_tf")


@pytest.mark.parametrize(("package", "other"), [("clm_pt", "clm_tf"), ("clm_tf", "clm_pt")])
def test_a_file_that_only_one_of_them_has_is_about_its_framework(package, other):
    assert files(package).keys() - files(other).keys() == OWN[package]


@pytest.mark.parametrize("name", sorted(PT.keys() & TF.keys()))
def test_functions_of_one_name_take_the_same_arguments(name):
    assert PT[name] == TF[name]


def test_both_have_and_export_what_a_person_needs_of_either():
    exported = {"generate", "load", "precision", "save", "score", "train"}
    assert exported | {"logits", "restore", "write"} <= {name.partition(".")[2] for name in PT.keys() & TF.keys()}
    for package in (clm_pt, clm_tf):
        assert exported <= {*package.__all__}
        assert package.__all__ == sorted(package.__all__)
