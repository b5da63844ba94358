"""Links in the pages lead somewhere, and pages and help use one word for one thing."""

import re
from pathlib import Path

import pytest

from clm_core import cli
from clm_core.config import COMMANDS
from clm_core.options.hints import table

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

EVIDENCE = r"gpu\.md|real-.+\.md"
"""The pages that `nox -s gpu` and `nox -s real` write, where a machine can: the README links to none."""

TERMS = {
    r"data sets?": "dataset",
    r"data (are|were|have|come|hold|bring)": "data is",
    r"updates? of the weights": "step",
    r"validat(e|es|ing)": "evaluate",
    r"(go|goes|going|went) on": "resume, continue",
    r"the course of": "schedule",
    r"seams?": "boundary, interface",
    r"strangers?('s)?": "third-party",
    r"verbs?": "command",
    r"refus(e|es|ed|al)|honour(ed)?": "reject, support",
    r"of (its|their|your|one's) own": "separate, or whose it is instead of",
    r"so many": "this many",
    r"could not be had": "could not be downloaded",
}
"""A word that is not used, and what is used for it."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page):
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


def test_the_readme_links_to_every_page():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    written = [page.name for page in PAGES[1:] if not re.fullmatch(EVIDENCE, page.name)]
    assert not [name for name in written if name not in text]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_uses_our_terms(page):
    assert avoided(page.read_text(encoding="utf-8")) == {}


@pytest.mark.parametrize("argv", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_uses_our_terms(argv, capsys):
    with pytest.raises(SystemExit):
        cli.main(argv)
    assert avoided(capsys.readouterr().out) == {}


def test_the_changelog_and_the_hints_use_our_terms():
    hints = [entry["say"] for entry in table()["options"].values() if "say" in entry]
    assert avoided("\n".join([*hints, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")])) == {}


def avoided(text):
    """What a text has of the words that are not used, and what is used instead."""
    words = " ".join(text.split())
    found = ((re.search(rf"\b({word})(?!\w)", words, re.IGNORECASE), term) for word, term in TERMS.items())
    return {match[0]: term for match, term in found if match}


def _anchors(page):
    """The headings of a page as links name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
