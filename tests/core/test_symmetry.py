"""The backends of clm have the same job in a file of the same name, and take the same arguments for it."""

import ast
from itertools import combinations
from pathlib import Path

import pytest

import clm_pt
import clm_tf
import clm_tf.keras3

ROOT = Path(__file__).parents[2]
PACKAGES = {"clm_pt": clm_pt, "clm_tf": clm_tf, "clm_tf.keras3": clm_tf.keras3}

EACH = {
    *("backend", "callbacks", "checkpoints", "checks", "datasets", "generation", "modeling", "optimization", "scoring"),
    *("adapters", "optimizers", "parts", "training", "weights"),
}
OF_CLASSES = {"guide", "repairs"}
"""What stands on transformers' own classes needs: its tab of the guide, and what is wrong in them."""

OWN = {
    "clm_pt": OF_CLASSES
    | {
        "arguments",
        "attention",
        "auxiliary",
        "head",
        "launch",
        "losses",
        "masters",
        "memory",
        "processes",
        "products",
    }
    | {"series", "sharding", "steps", "trainer", "workers"},
    "clm_tf": OF_CLASSES
    | {"accumulation", "blocks", "devices", "head", "losses", "meeting", "projection", "push_to_hub", "sharing"}
    | {"steps", "together", "tracing", "uploads"},
    "clm_tf.keras3": {
        *(
            "accumulation",
            "attention",
            "block",
            "decoder",
            "dropout",
            "experts",
            "feedforward",
            "layout",
            "norm",
            "projection",
        ),
        *("masters", "push_to_hub", "rope"),
    },
}
"""What only one framework needs, or both packages of TensorFlow; Keras 3 has the model itself."""


def files(package):
    folder = ROOT.joinpath(*package.split("."))
    return {path.stem: path for path in folder.glob("*.py") if path.stem != "__init__"}


def functions(package):
    """Its public functions, with their positional parameters and their defaults."""
    return {
        f"{file}.{node.name}": [*(it.arg for it in node.args.args), *map(ast.unparse, node.args.defaults)]
        for file, path in files(package).items()
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }


FUNCTIONS = {package: functions(package) for package in PACKAGES}
PAIRS = [
    (one, other, name)
    for one, other in combinations(PACKAGES, 2)
    for name in sorted(FUNCTIONS[one].keys() & FUNCTIONS[other].keys())
]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_file_that_not_each_has_is_about_its_framework(package):
    assert files(package).keys() == EACH | OWN[package]


def test_what_is_in_another_place_of_another_version_is_imported_in_one_file_for_the_versions():
    found = [path for package in PACKAGES for path in files(package).values()]
    assert [path.name for path in found if "except ImportError" in path.read_text(encoding="utf-8")] == ["series.py"]


@pytest.mark.parametrize(("one", "other", "name"), PAIRS)
def test_functions_of_one_name_take_the_same_arguments(one, other, name):
    assert FUNCTIONS[one][name] == FUNCTIONS[other][name]


@pytest.mark.parametrize("package", PACKAGES)
def test_each_has_and_exports_what_a_person_needs_of_any(package):
    exported = {"generate", "load", "precision", "save", "score", "train"}
    assert exported | {"logits", "restore", "write"} <= {name.partition(".")[2] for name in FUNCTIONS[package]}
    assert exported <= {*PACKAGES[package].__all__}
    assert PACKAGES[package].__all__ == sorted(PACKAGES[package].__all__)
