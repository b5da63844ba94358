"""The generated parts of the pages say what is so."""

from pathlib import Path

from support import package_map

from clm_core.options.reference import insert, reference, shared_options

ROOT = Path(__file__).parents[2]


def test_the_option_reference_is_that_of_the_declarations():
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert insert(page) == page, "run: python -m clm_core.options.reference docs/reference.md"


def test_the_commands_that_take_a_backend_and_a_configuration_are_named():
    takers = "`train`, `evaluate`, `generate` and `prepare` take `--backend`;\nthese and `parity` take `--config`"
    assert takers in shared_options()


def test_an_option_with_another_default_is_listed_again():
    defaults = [row.split(" | ")[2] for row in reference().splitlines() if row.startswith("| `--max-steps`")]
    assert defaults == ["`-1`", "`10`"]


def test_the_values_to_choose_from_are_listed():
    row = next(row for row in reference().splitlines() if row.startswith("| `--save-strategy`"))
    assert row.split(" | ")[1] == "`no`, `steps`, `epoch`"


def test_the_map_of_the_packages_has_every_file_with_its_first_line():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert package_map.insert(page) == page, "run: python tests/support/package_map.py CONTRIBUTING.md"
