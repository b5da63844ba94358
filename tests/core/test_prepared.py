"""Prepared data on disk: whole or not there, never overwritten unasked, and readable by others."""

import json
import os

import numpy as np
import pytest
from support.folders import names

from clm_core import sample
from clm_core.data import preparation
from clm_core.data.prepared import Prepared
from clm_core.errors import DataError, ModelError, OutputError


def test_prepared_data_train_the_same_model_as_the_text(train, prepare, tmp_path):
    folder = prepare(output_dir="ready").folder
    assert names(folder) == ["manifest.json", "train.bin", "train.ends", "val.bin", "validation.bin", "validation.ends"]
    from_text, from_folder = train(output_dir="a"), train(output_dir="b", train_file=[], prepared=folder)
    assert from_text.after == from_folder.after


def test_the_blocks_are_a_view_that_cannot_be_written(prepare):
    blocks = Prepared.open(prepare().folder).blocks("train", 16)
    assert isinstance(blocks.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        blocks[0, 0] = 1


def test_data_prepared_with_another_tokenizer_are_refused(prepare, train, tokenizer, tmp_path):
    folder = prepare(output_dir="ready").folder
    tokenizer.save_pretrained(tmp_path / "other")
    config = json.loads((tmp_path / "other" / "tokenizer.json").read_text())
    config["normalizer"] = {"type": "Lowercase"}
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="a different tokenizer"):
        train(train_file=[], prepared=folder, tokenizer_name=tmp_path / "other")


def test_the_identity_of_the_tokenizer_is_the_same_in_every_version(tokenizer):
    expected = "cdf418a9b565332d296c2ef20cdd6ce29a91336938ac683348b80d838b73c575"
    assert preparation.digest_tokenizer(tokenizer) == expected


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("manifest.json", None, "contains no prepared data"),
        ("manifest.json", b"{", "is damaged"),
        ("manifest.json", b"[]", "is damaged"),
        ("manifest.json", b'"text"', "is damaged"),
        ("manifest.json", b'{"format": 99}', "has format 99, but this version reads 2"),
        ("train.bin", None, "has 0 bytes, but"),
        ("train.bin", b"ab", "has 2 bytes, but"),
        ("validation.ends", b"ab", "has 2 bytes, but"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(prepare, train, file, content, message):
    folder = prepare(output_dir="ready").folder
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(DataError, match=message):
        train(train_file=[], prepared=folder)


def test_a_training_on_a_folder_with_a_flipped_byte_is_refused(prepare, train):
    folder = prepare(output_dir="ready").folder
    content = bytearray((folder / "train.bin").read_bytes())
    content[9] ^= 1
    (folder / "train.bin").write_bytes(content)
    with pytest.raises(DataError, match=r"train\.bin does not match its checksum: prepare again"):
        train(train_file=[], prepared=folder)


def test_a_folder_with_other_prepared_data_is_kept_unless_it_may_be_overwritten(prepare):
    folder = prepare(output_dir="ready").folder
    with pytest.raises(
        OutputError, match="contains other prepared data: choose another folder, or give --overwrite-cache"
    ):
        prepare(output_dir="ready", seed=1)
    assert Prepared.open(folder).manifest.options["seed"] == 42
    prepare(output_dir="ready", seed=1, overwrite_cache=True)
    assert Prepared.open(folder).manifest.options["seed"] == 1


@pytest.mark.parametrize("stranger", ["manifest.json", "notes.txt"])
def test_a_file_that_is_not_of_prepared_data_is_never_deleted(prepare, tmp_path, stranger):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.json").write_text("{}")
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    with pytest.raises(OutputError, match="contains more than prepared data"):
        prepare(output_dir="mine", overwrite_cache=True)
    assert (tmp_path / "mine" / stranger).exists()


def test_an_empty_folder_is_filled(prepare, tmp_path):
    (tmp_path / "ready").mkdir()
    assert "manifest.json" in names(prepare(output_dir="ready").folder)


def test_data_that_cannot_be_read_to_the_end_leave_nothing(prepare, corpus, tmp_path):
    with corpus.open("a") as file:
        file.write("{broken\n")
    with pytest.raises(DataError, match="line 61"):
        prepare(output_dir="ready")
    assert names(tmp_path) == ["corpus.jsonl"]


def test_a_tokenizer_in_the_form_of_gpt2_is_read_alike_from_its_two_files(tokenizer, tmp_path):
    from clm_core.config import TokenizerOptions
    from clm_core.models.tokenizers import load_tokenizer

    model = json.loads((sample.TOKENIZER / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (tmp_path / "bare" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    bare = load_tokenizer(TokenizerOptions(tokenizer_name=str(tmp_path / "bare")))
    assert bare("Why is the sky blue?")["input_ids"] == tokenizer("Why is the sky blue?")["input_ids"]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077], ids=oct)
def test_others_may_read_prepared_data_as_the_umask_lets_them_read_all_else(prepare, umask):
    before = os.umask(umask)
    try:
        folder = prepare(output_dir="ready").folder
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o777 & ~umask
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666 & ~umask}


@pytest.mark.parametrize("links", [True, False])
def test_nanogpt_finds_the_tokens_of_both_splits(prepare, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *paths, **more: (_ for _ in ()).throw(PermissionError("no links here")))
    folder = prepare(output_dir="ready").folder
    prepared = Prepared.open(folder)
    for split, name in (("train", "train.bin"), ("validation", "val.bin")):
        read = np.memmap(folder / name, dtype=np.uint16, mode="r")  # As its train.py does.
        assert np.array_equal(read, prepared.tokens(split))
    assert (folder / "val.bin").samefile(folder / "validation.bin") == links
    assert prepare(output_dir="ready").reused


def test_a_copy_for_nanogpt_that_is_damaged_is_noticed(prepare):
    folder = prepare(output_dir="ready").folder
    (folder / "val.bin").unlink()
    (folder / "val.bin").write_bytes(b"other tokens")
    with pytest.raises(DataError, match=r"val\.bin does not match its checksum"):
        Prepared.open(folder).verify()
    assert not prepare(output_dir="ready").reused


def test_tokens_that_nanogpt_would_misread_have_no_name_for_it(prepare, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "large")
    content = json.loads((tmp_path / "large" / "tokenizer.json").read_text())
    content["model"]["vocab"] |= {f"never {number}": number for number in range(2048, 2**16 + 1)}
    (tmp_path / "large" / "tokenizer.json").write_text(json.dumps(content))
    folder = prepare(output_dir="ready", tokenizer_name=tmp_path / "large").folder
    assert Prepared.open(folder).manifest.dtype == "<u4"
    assert "val.bin" not in names(folder)
