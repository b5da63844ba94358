"""A file of a model is found in a folder or in the Hub's cache, and so is the commit that it is of."""

import pytest

from clm_core.errors import ModelError
from clm_core.models.adapters.finding import find_adapter
from clm_core.models.stored_file import commit_of, fetch
from clm_core.testing import hub_cache


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of a model in a cache, whose branch `main` is its second commit; the Hub does not answer."""
    hub_cache.write(tmp_path, monkeypatch)
    folder = tmp_path / "models--clm--tiny"
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("2" * 40)
    return folder


def test_the_commit_is_that_of_the_cache_for_a_name_and_none_for_a_folder_wherever_it_lies(cache):
    assert commit_of("clm/tiny", "main") == "2" * 40
    assert commit_of("clm/tiny", "1" * 40) == "1" * 40
    assert commit_of(str(cache / "snapshots" / ("2" * 40)), "main") == "main"


def test_a_file_is_found_by_either_name_and_one_that_cannot_be_downloaded_is_named(cache):
    folder = str(cache / "snapshots" / ("1" * 40))
    assert fetch(folder, "main", "config.json") == fetch("clm/tiny", "1" * 40, "config.json")
    assert [fetch(name, "1" * 40, "vocab.json") for name in (folder, "clm/tiny")] == [None, None]
    with pytest.raises(ModelError, match=r"clm/a/tiny: config.json cannot be downloaded: "):
        fetch("clm/a/tiny", "main", "config.json")
    assert find_adapter("clm/a/tiny", "main") is None
