"""The reference says what is so."""

from pathlib import Path

from clm_core.options.reference import insert

REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"


def test_the_option_reference_is_that_of_the_declarations():
    page = REFERENCE.read_text(encoding="utf-8")
    assert insert(page) == page, "run: python -m clm_core.options.reference docs/reference.md"
