"""The order of the blocks in an epoch where there are too many to sort: whole, stable, and without memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core import Schedule, TrainConfig, checkpoints, epoch_order
from clm_core.errors import ModelError
from clm_core.marker import mark
from clm_core.schedule import order, schedule

SEEDS = st.integers(0, 2**32 - 1)
HUGE = 4_000_000_000
PINNED = [[4, 0, 7, 2, 1, 5, 3, 6], [4, 0, 2, 7, 3, 5, 6, 1]]
PINNED_HUGE = [3289816109, 1160866921]


def course(blocks, **options):
    return Schedule.from_config(TrainConfig(train_batch_size=1024, **options), blocks=blocks, devices=3)


@pytest.fixture
def few_in_memory(monkeypatch):
    for module in (order, schedule):
        monkeypatch.setattr(module, "IN_MEMORY", 100)


@given(blocks=st.integers(1, 5000), seed=SEEDS, epoch=st.integers(0, 2**40))
def test_each_block_comes_once_in_an_order_that_is_not_in_memory(blocks, seed, epoch):
    rows = order.Feistel.of(blocks, seed=seed, epoch=epoch).rows_at(np.arange(blocks))
    assert rows.dtype == np.int64
    assert np.bincount(rows, minlength=blocks).tolist() == [1] * blocks


def test_that_order_is_the_same_on_every_machine_and_in_every_version():
    found = [order.Feistel.of(8, seed=seed, epoch=epoch).rows_at(np.arange(8)) for seed, epoch in [(42, 0), (42, 1)]]
    assert [rows.tolist() for rows in found] == PINNED
    assert order.Feistel.of(HUGE, seed=0, epoch=2).rows_at(np.array([0, HUGE - 1])).tolist() == PINNED_HUGE


@given(start=st.integers(0, HUGE - 50), seed=SEEDS)
def test_any_part_of_an_order_is_what_the_whole_has_there(start, seed):
    rows = order.rows_in(HUGE, seed=seed, epoch=1)
    parts = [rows(start, start + 20), rows(start + 20, start + 50)]
    assert np.concatenate(parts).tolist() == rows(start, start + 50).tolist()
    assert min(map(np.min, parts)) >= 0
    assert max(map(np.max, parts)) < HUGE


def test_the_order_is_sorted_up_to_the_limit_and_computed_above_it(few_in_memory):
    assert (
        epoch_order(100, seed=42, epoch=0).tolist()
        != order.Feistel.of(100, seed=42, epoch=0).rows_at(np.arange(100)).tolist()
    )
    assert (
        epoch_order(101, seed=42, epoch=0).tolist()
        == order.Feistel.of(101, seed=42, epoch=0).rows_at(np.arange(101)).tolist()
    )


def test_every_device_has_its_share_of_an_order_that_is_not_in_memory(few_in_memory):
    found = Schedule.from_config(TrainConfig(train_batch_size=8, num_train_epochs=2), blocks=1001, devices=3)
    of_ranks = [[np.concatenate(batches) for _, batches in found.shares(rank)] for rank in range(3)]
    rows = np.concatenate([rows for steps in of_ranks for rows in steps])
    assert np.bincount(rows, minlength=1001).tolist() == [2] * 1001


@pytest.mark.parametrize("place", [0, 1, 1_000_003, -1])
def test_a_training_on_billions_of_blocks_starts_at_any_step_without_an_order_in_memory(place):
    huge = course(HUGE)
    step = place % huge.total_steps
    tracemalloc.start()
    try:
        number, batches = next(huge.shares(1, step))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (number, {len(rows) for rows in batches}) == (step + 1, {8})
    assert peak < 2**20


def test_the_devices_of_a_process_share_the_order_that_is_in_memory():
    found = Schedule.from_config(TrainConfig(train_batch_size=8), blocks=1000, devices=3)
    of_ranks = [next(found.batches(0, rank)) for rank in range(3)]
    assert len({id(rows.base) for rows in of_ranks}) == 1
    assert not of_ranks[0].flags.writeable


def test_a_checkpoint_names_the_order_where_it_is_not_the_usual_one():
    assert "order" not in course(2**26).identity()
    assert course(2**26 + 1).identity() == {**course(2**26).identity(), "blocks": 2**26 + 1, "order": "feistel"}


def test_a_checkpoint_whose_order_was_sorted_is_not_continued_with_another(tmp_path):
    huge = course(HUGE)
    checkpoint = tmp_path / "checkpoint-5"
    checkpoint.mkdir()
    mark(checkpoint, step=5, backend="pt", identity=huge.identity())
    assert checkpoints.check_continues(checkpoint, huge, backend="pt") == 5
    mark(checkpoint, step=5, backend="pt", identity={**huge.identity(), "order": ""})
    with pytest.raises(
        ModelError, match="by an earlier clm, which ordered 4,000,000,000 blocks differently: resume with"
    ):
        checkpoints.check_continues(checkpoint, huge, backend="pt")
