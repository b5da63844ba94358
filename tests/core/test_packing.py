"""`--packing guide` gives the rows of the guide's own script, and every token of the text is in the ledger."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from guide_script import group_texts
from hypothesis import given, settings
from hypothesis import strategies as st

import clm_core as clm
from clm_core.config import PrepareConfig
from clm_core.data.packing import GuideWriter, map_batches
from clm_core.data.preparation import Preparation
from clm_core.data.preparation import prepare as prepare_data
from clm_core.data.tokenization import Tokens
from clm_core.errors import DataError, OptionError

TEXTS = [
    f"Why is sky number {number} so blue?" * (number % 7) + " <|endoftext|> " * (number % 11 == 0)
    for number in range(2500)
]
"""Some are empty, and some have a special token in them."""


def rows_by_hand(rows, block_size, processes):
    """What `datasets.map(group_texts, batched=True, num_proc=processes)` makes of rows of tokens."""
    processes = max(1, min(processes, len(rows)))
    made = []
    for shard in np.array_split(np.arange(len(rows)), processes):
        for start in range(0, len(shard), 1000):
            batch = [rows[row] for row in shard[start : start + 1000]]
            made += group_texts({"input_ids": batch}, block_size)["input_ids"]
    return made


def write(texts: list[str | None], folder: Path) -> Path:
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def prepare(path, processes, **options):
    chosen = {"tokenizer_name": "sample", "packing": "guide", "append_eos": False, "validation_split_percentage": 0}
    return clm.prepare(train_file=path, preprocessing_num_workers=processes, **{**chosen, **options})


def blocks(done, block_size, split="train"):
    return clm.Prepared.open(done.folder).blocks(split, block_size).tolist()


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("documents", [99, 1000, 1001, 2500])
def test_the_rows_are_those_of_group_texts(tmp_path, tokenizer, documents, processes):
    texts = TEXTS[:documents]
    expected = rows_by_hand(tokenizer(texts)["input_ids"], 16, processes)
    found = blocks(prepare(write(texts, tmp_path), processes, block_size=16), 16)
    assert found == [row for row in expected if len(row) == 16]
    assert tokenizer.eos_token_id in np.unique(found)


def test_the_rows_are_those_of_the_guides_script(tmp_path, tokenizer):
    dataset = datasets.Dataset.from_dict({"text": TEXTS})
    tokenized = dataset.map(lambda rows: tokenizer(rows["text"]), batched=True, num_proc=2, remove_columns=["text"])
    lm_dataset = tokenized.map(lambda rows: group_texts(rows, 128), batched=True, num_proc=2)
    assert blocks(prepare(write(TEXTS, tmp_path), 2), 128) == lm_dataset["input_ids"][:]


@given(st.integers(1, 20_000), st.integers(1, 40))
def test_the_batches_are_those_of_map(rows, processes):
    shards = np.array_split(np.arange(rows), min(processes, rows))
    expected = [(part[0], part[-1] + 1) for shard in shards for part in np.split(shard, range(1000, len(shard), 1000))]
    assert list(map_batches(rows, processes)) == expected


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(0, 9), max_size=9), max_size=40), st.integers(2, 12), st.integers(1, 5), st.data())
def test_every_token_is_kept_in_its_place_or_counted_as_dropped(tmp_path_factory, rows, size, processes, data):
    folder, eos = tmp_path_factory.mktemp("split"), data.draw(st.sampled_from([[], [7]]))
    with GuideWriter(folder, "train", dtype="<u2", eos=eos, block_size=size, processes=processes) as writer:
        lengths = np.array([len(row) for row in rows], np.int64)
        writer.add(Tokens(np.array([token for row in rows for token in row], np.uint32), lengths), size=0)
        record = writer.finish()
    kept = np.fromfile(folder / "train.bin", "<u2")
    made = rows_by_hand([row + eos for row in rows], size, processes)
    whole = [token for row in made if len(row) == size for token in row]
    assert kept.tolist() == whole
    assert record.tokens + record.eos_added == len(kept) + record.tokens_dropped
    assert writer.short == sum(len(row) for row in made if len(row) < size)
    ends = np.fromfile(folder / "train.ends", "<u8")
    assert len(ends) == len(rows)
    assert (ends[-1] if rows else 0) == len(kept)
    assert sorted(path.name for path in folder.iterdir()) == ["train.bin", "train.ends"]


def test_a_batch_shorter_than_a_block_is_dropped_and_said(tmp_path, tokenizer):
    said = []
    progress = clm.Progress()
    progress.say = said.append
    path = write(["short", *["long enough " * 99] * 9], tmp_path)
    done = prepare(path, 10, block_size=16, progress=progress)
    short = len(tokenizer("short")["input_ids"])
    assert said[0].startswith(f"train: {short} tokens dropped from batches that do not fill one block of 16")
    split = done.ledger["splits"]["train"]
    assert split["tokens"] + split["eos_added"] == split["tokens_kept"] + split["tokens_dropped"]


def test_the_key_has_the_block_size_and_the_processes(tmp_path):
    path = write(TEXTS[:60], tmp_path)
    first = prepare(path, 2, block_size=16)
    assert not prepare(path, 1, block_size=16).reused
    assert not prepare(path, 2, block_size=32).reused
    assert not prepare(path, 2, block_size=16, packing="stream").reused
    assert not prepare(path, 2, block_size=16, append_eos=True).reused
    assert prepare(path, 2, block_size=16).folder == first.folder
    assert prepare(path, None, block_size=16).folder == prepare(path, 1, block_size=16).folder


def test_eos_between_the_documents_goes_with_it(tmp_path, tokenizer):
    rows = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(TEXTS[:60])["input_ids"]]
    done = prepare(write(TEXTS[:60], tmp_path), 2, block_size=16, append_eos=True)
    assert blocks(done, 16) == [row for row in rows_by_hand(rows, 16, 2) if len(row) == 16]


def test_another_block_size_than_it_was_packed_for_is_refused(tmp_path, train, refused):
    ready = prepare(write(TEXTS[:99], tmp_path), 2, block_size=16, output_dir="ready").folder
    with pytest.raises(OptionError, match="block_size 32: ready is packed in blocks of 16: give --block-size 16"):
        train(train_file=[], prepared=ready, block_size=32)
    assert train(train_file=[], prepared=ready, block_size=16).steps
    assert "packed in blocks of 16" in refused("inspect", ready, "--block-size", 32)
    assert "--packing: the data that prepared names" in refused(
        "--backend", "bigram", "train", "--prepared", ready, "--packing", "guide"
    )


def test_inspect_shows_how_it_was_packed_with_its_own_block_size(tmp_path, capsys):
    from clm_core import cli

    prepare(write(TEXTS[:99], tmp_path), 2, block_size=16, output_dir="ready")
    assert cli.main(["inspect", "ready", "--verify"]) == 0
    shown = capsys.readouterr().out
    assert "packing guide, block_size 16, preprocessing_num_workers 2" in shown
    assert "blocks of 16" in shown


def test_a_part_cannot_be_packed_as_the_guide_does(tmp_path, refused):
    path = write(TEXTS[:60], tmp_path)
    assert "shard cannot be combined with packing guide" in refused(
        "prepare", "--train-file", path, "--packing", "guide", "--shard", "1/2"
    )


def test_no_block_at_all_is_refused_with_what_would_help_and_nothing_is_written(tmp_path):
    with pytest.raises(DataError, match=r"fills one block of 4000: use a smaller --block-size, fewer"):
        prepare(write(TEXTS[:60], tmp_path), 4, block_size=4000, output_dir=tmp_path / "data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "texts.jsonl"]


def test_a_run_is_evaluated_on_the_rows_it_was_trained_on(train, tmp_path):
    run = train(packing="guide", preprocessing_num_workers=2)
    found = clm.evaluate(backend="bigram", model_name_or_path=run.output_dir)
    assert found.metrics == run.after
    assert found.ledger == run.ledger


def test_damage_and_slices_make_no_difference(tmp_path, tokenizer):
    config = PrepareConfig(train_file=(str(write(TEXTS, tmp_path)),), packing="guide", preprocessing_num_workers=4)
    preparation = Preparation.make(config, tokenizer)
    one, _ = prepare_data(preparation, tmp_path / "one", workers=1)
    two, _ = prepare_data(preparation, tmp_path / "two", workers=3)
    assert one.manifest.splits == two.manifest.splits
    one.verify()
