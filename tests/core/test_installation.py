"""Every line that installs something works as it is written."""

import json
import re
import shlex
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from clm_core import cli, installation

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("examples/**/*.py"),
    *ROOT.glob("clm_[pt]*/**/backend.py"),
]
ON_THE_INDEX = ("torch", "nox", "peft", "transformers")
"""What pages may take from the index."""

CLONE = 'from a clone of the repository: pip install ".[pt]"'


@pytest.fixture
def came_from(tmp_path, monkeypatch):
    """Makes clm a distribution that was installed from somewhere, as pip records it."""

    def install(place, *urls):
        info = tmp_path / "site" / "clm-0.1.0.dist-info"
        info.mkdir(parents=True)
        lines = "".join(f"Project-URL: {url}\n" for url in urls)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: clm\nVersion: 0.1.0\n{lines}")
        if place:
            (info / "direct_url.json").write_text(json.dumps(place))
        monkeypatch.setattr(metadata, "distribution", lambda name: metadata.Distribution.at(info))

    return install


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ({"url": ROOT.as_uri(), "dir_info": {}}, f'pip install "{ROOT}[pt]"'),
        ({"url": ROOT.as_uri(), "dir_info": {"editable": True}}, f'pip install -e "{ROOT}[pt]"'),
        ({"url": "file:///no/such/folder", "dir_info": {}}, CLONE),
        ({"url": "file:///no/such/clm.whl", "archive_info": {}}, CLONE),
        (
            {"url": "https://git.host/clm", "vcs_info": {"vcs": "git", "commit_id": "a1b2"}, "subdirectory": "x"},
            'pip install "clm[pt] @ git+https://git.host/clm@a1b2#subdirectory=x"',
        ),
        ({"url": "https://host/clm.whl", "archive_info": {}}, 'pip install "clm[pt] @ https://host/clm.whl"'),
        ({"url": "https://jane:pass@host/clm.whl", "archive_info": {}}, CLONE),
        (None, CLONE),
    ],
)
def test_an_extra_is_installed_from_where_clm_came_from(came_from, place, line):
    came_from(place)
    assert installation.install_extra("pt") == line


def test_else_from_the_repository_that_the_project_names(came_from):
    came_from(None, "Homepage, https://clm.test", "Repository, https://git.host/clm")
    assert installation.install_extra("tf") == 'pip install "clm[tf] @ git+https://git.host/clm"'


def test_the_folder_may_have_any_name(came_from, tmp_path):
    folder = tmp_path / "my $clone's"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    came_from({"url": folder.as_uri(), "dir_info": {}})
    assert shlex.split(installation.install_extra("pt")) == ["pip", "install", f"{folder}[pt]"]


def test_the_command_of_somebody_elses_backend_is_theirs():
    assert installation.install_line("pip install clm-absent") == "pip install clm-absent"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_installs_is_in_the_clone_or_on_the_index(page):
    words = r"(?:\"[^\"\n]+\"|[\w./=-]+)"
    for line in re.findall(rf"pip install ({words}(?: {words})*)", page.read_text()):
        for requirement in shlex.split(line):
            if extras := re.fullmatch(r"(?:\.|clm)\[([\w,]+)\]", requirement):
                assert set(extras[1].split(",")) <= PROJECT["optional-dependencies"].keys()
                assert requirement.startswith(".") or page.name == "backend.py"
            elif requirement.startswith("."):
                assert (ROOT / requirement / "pyproject.toml").is_file()
            else:
                assert re.split(r"[=<>]", requirement)[0] in ON_THE_INDEX


def test_a_strangers_package_of_the_same_name_is_named(tmp_path, monkeypatch, capsys):
    info = tmp_path / "clm_core_tools-3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: clm-core-tools\nVersion: 3\n")
    (info / "RECORD").write_text("bin/x,,\nclm_core/__init__.py,,\n")
    assert cli.main(["backends"]) == 0
    monkeypatch.syspath_prepend(tmp_path)
    assert cli.main(["backends", "--json"]) == 1
    shown = capsys.readouterr()
    assert "clm-core-tools 3 also ships a package clm_core" in shown.err
    assert "bigram" in json.loads(shown.out.splitlines()[-1])
