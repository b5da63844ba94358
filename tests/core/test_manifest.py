"""The manifest of prepared data proves itself; an older one, without a seal, is compared with the files."""

import json
import shutil

import pytest

import clm_core as clm
from clm_core.data.manifest import Manifest, read_manifest
from clm_core.data.prepared import Prepared
from clm_core.errors import DataError
from clm_core.hub import prepared_data

SAID = "is damaged (it was changed after it was written)"


@pytest.fixture
def edit():
    """Change a number of a manifest, of all the data or of a split; with the seal, or without, as of an earlier clm."""

    def change(folder, *place, by=1, sealed=True):
        manifest = json.loads((folder / "manifest.json").read_text())
        *outer, name = place
        inner = manifest["splits"][outer[0]] if outer else manifest
        inner[name] += by
        if not sealed:
            manifest.pop("sha256", None)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return change


NUMBERS = [["train", "bytes"], ["validation", "largest_id"], ["documents_read"], ["vocabulary"]]


@pytest.mark.parametrize("place", NUMBERS, ids=" ".join)
def test_a_changed_number_is_refused_and_in_the_cache_prepared_again(prepare, edit, place, capsys):
    folder = prepare().folder
    edit(folder, *place)
    with pytest.raises(DataError, match=r"manifest\.json is damaged \(it was changed"):
        clm.inspect(folder, verify=True)
    again = prepare(progress=clm.terminal_progress())
    assert f"{folder}/manifest.json {SAID}: the cached data is damaged; preparing it again" in capsys.readouterr().err
    assert not again.reused
    assert prepare().reused


def test_a_changed_manifest_in_a_folder_that_was_named_is_replaced_only_if_the_user_says_so(prepare, edit):
    folder = prepare(output_dir="ready").folder
    edit(folder, "documents_read")
    with pytest.raises(DataError, match=r"it was changed .*: prepare again, with --overwrite-cache"):
        prepare(output_dir="ready")
    prepare(output_dir="ready", overwrite_cache=True)
    assert read_manifest(folder).documents_read == 60


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (["documents_read"], "does not say where all documents are that it counts"),
        (["documents_empty"], "does not say where all documents are that it counts"),
        (["train", "largest_id"], r"has largest_id (\d+) for train, whose file has (\d+)"),
        (["train", "tokens"], r"train\.bin has [\d,]+ bytes, but manifest\.json says [\d,]+"),
        (["train", "documents"], r"train\.ends has 384 bytes, but manifest\.json says 392"),
    ],
    ids=str,
)
def test_in_a_manifest_of_an_earlier_clm_a_number_is_compared_with_the_files(prepare, edit, place, message):
    folder = prepare(output_dir="ready").folder
    edit(folder, *place, sealed=False)
    with pytest.raises(DataError, match=message):
        Prepared.open(folder).verify()


def test_a_token_of_a_text_cannot_count_as_the_end_of_one_in_a_manifest_of_an_earlier_clm(prepare, edit):
    folder = prepare(output_dir="ready").folder
    edit(folder, "train", "eos_added", sealed=False)
    edit(folder, "train", "tokens", by=-1, sealed=False)
    with pytest.raises(DataError, match=r"has eos_added 49 for train of 48 documents"):
        Prepared.open(folder).verify()


def test_data_of_an_earlier_clm_are_used_as_before(prepare, train, edit):
    folder = prepare(output_dir="ready").folder
    edit(folder, "documents_read", by=0, sealed=False)
    assert read_manifest(folder).sha256 is None
    assert clm.inspect(folder, verify=True).verified
    assert train(train_file=[], prepared=folder).steps == train().steps
    assert prepare(output_dir="ready").reused


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "<f8"},
        {"vocabulary": "many"},
        {"options": None},
        {"options": {"shard": "5/4"}},
        {"splits": {"../train": {}}},
        {"splits": [1]},
        {"tokenizer": 7},
        {"more": 1},
        {"sha256": 7},
    ],
    ids=str,
)
def test_a_manifest_that_says_what_cannot_be_is_damaged(prepare, change):
    folder = prepare(output_dir="ready").folder
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "sha256": None, **change}))
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        read_manifest(folder)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"format": 2}', '{"format": 2, "splits": {"train": 3}}', "\0"])
def test_what_is_no_manifest_is_damaged(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        read_manifest(tmp_path)


def test_data_that_lie_on_another_disk_may_be_linked_and_are_checked_through_the_link(prepare, train, tmp_path):
    folder = prepare(output_dir="ready").folder
    moved = shutil.move(folder / "train.bin", tmp_path / "elsewhere.bin")
    (folder / "train.bin").symlink_to(moved)
    assert train(train_file=[], prepared=folder).steps > 0
    moved.write_bytes(bytes(moved.stat().st_size))
    with pytest.raises(DataError, match=r"ready/train\.bin does not match its checksum: prepare again"):
        train(train_file=[], prepared=folder)


def test_the_manifest_that_is_published_proves_itself_without_the_path_of_the_tokenizer(prepare, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "mine")
    folder = prepare(output_dir="ready", tokenizer_name=tmp_path / "mine").folder
    content = prepared_data.files(Prepared.open(folder), "jane/fox")["manifest.json"]
    (folder / "manifest.json").write_bytes(content)
    published: Manifest = read_manifest(folder)
    assert (published.tokenizer_name, published.sha256 is None) == ("mine", False)
