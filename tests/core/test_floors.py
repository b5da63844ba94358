"""The floors of the house: who may import whom, within functions too; and how large a room may be."""

from graphlib import TopologicalSorter

import pytest
from support.imports import imported_names, modules

import clm_core

FLOORS = [
    "counts lazy redaction sample shards stopping",
    "errors installation rates results",
    "config durable hub_requests paths",
    "marker sampling schedule screen",
    "backend",
    "metrics models record registry scoring",
    "data optimizer weights",
    "adapters checkpoints",
    "options",
    "launch runs testing",
    "hub inputs",
    "comparison",
    "commands",
    "api cli",
    "__main__",
]
"""The packages and modules of clm_core; each imports from the lines above its own, and from its own package."""

CONTRACT = [
    *(
        "backend",
        "checkpoints",
        "config",
        "counts",
        "durable",
        "errors",
        "lazy",
        "models",
        "results",
        "sample",
        "schedule",
    ),
    *("adapters", "optimizer", "sampling", "scoring", "stopping", "weights"),
    *("data.guide", "data.prepared", "launch.mailbox", "screen.quiet"),
]
"""What a backend imports of clm_core."""

BEYOND = {
    "clm_tf.guide": {"hub.pushing", "record"},
    "clm_tf.uploads": {"hub"},
    "clm_tf.keras3.push_to_hub": {"hub.card"},
}
"""What else files of a backend import: they publish from `model.fit`, where the core is not at hand to do so."""

CORE, BACKENDS = modules("clm_core"), modules("clm_pt", "clm_tf")
FLAT = [name for name in CORE if name.count(".") == 1]
HEIGHT = {room: height for height, line in enumerate(FLOORS) for room in line.split()}


def imports(path):
    """The modules of clm_core that a file imports, without the name of the package."""
    return {_module(name) for name in imported_names(path) if name.startswith("clm_core.")}


def _module(name):
    while name not in CORE:
        name = name.rpartition(".")[0]
    return name.removeprefix("clm_core").removeprefix(".")


def _room(module):
    return module.split(".")[0]


def test_every_package_and_every_flat_module_has_its_floor():
    assert sorted(name.removeprefix("clm_core.") for name in FLAT) == sorted(HEIGHT)


@pytest.mark.parametrize("name", [name for name in CORE if name != "clm_core"])
def test_a_module_imports_from_the_floors_below_and_from_its_own_package(name):
    own = _room(name.removeprefix("clm_core."))
    others = {module for module in imports(CORE[name]) if _room(module) != own}
    assert [module for module in others if not HEIGHT[_room(module)] < HEIGHT[own]] == []


def test_no_modules_import_each_other_in_a_circle():
    graph = {name.removeprefix("clm_core."): imports(path) for name, path in CORE.items()}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_imports_what_the_contract_has_for_it(name):
    allowed = {*CONTRACT, *BEYOND.get(name, ())}
    assert [module for module in imports(BACKENDS[name]) if not {module, _room(module)} & allowed] == []


def test_what_goes_beyond_the_contract_is_still_needed():
    for name, more in BEYOND.items():
        found = imports(BACKENDS[name])
        assert more == {module for module in more if module in found or module in map(_room, found)}


def test_the_names_that_the_package_exports_are_not_those_of_its_modules():
    """A module of such a name would be found where the function is asked for."""
    assert {name.removeprefix("clm_core.") for name in FLAT} & set(clm_core.__all__) == set()


def test_there_are_few_enough_flat_modules_to_be_looked_over():
    assert len([name for name in FLAT if CORE[name].name != "__init__.py"]) <= 25


def test_every_file_is_short_enough_to_be_read_whole():
    files = modules("clm_core", "clm_pt", "clm_tf", "examples", "tests")
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in files.items()}
    assert {name: count for name, count in lines.items() if count > 330} == {}
