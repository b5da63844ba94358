"""How the steps of a training are shared out to devices, and what their processes must have in common."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.backend import Score, World, check_same
from clm_core.config import TrainConfig
from clm_core.errors import OptionError
from clm_core.schedule import Schedule, epoch_order
from clm_core.scoring import score_in_batches

SIZES = st.integers(1, 9)


def schedule(blocks, devices=1, **options):
    return Schedule.from_config(TrainConfig(num_train_epochs=2.0, **options), blocks=blocks, devices=devices)


@given(blocks=st.integers(9, 120), batch=SIZES, step_blocks=SIZES, devices=SIZES)
def test_every_block_is_on_exactly_one_device_once_in_an_epoch(blocks, batch, step_blocks, devices):
    course = schedule(blocks, devices, per_device_train_batch_size=batch, train_batch_size=step_blocks)
    of_ranks = [np.concatenate(list(course.batches(1, rank))) for rank in range(devices)]
    assert sorted(np.concatenate(of_ranks)) == list(range(blocks))


@given(blocks=st.integers(9, 120), batch=SIZES, step_blocks=SIZES, devices=SIZES, first=st.integers(0, 30))
def test_the_shares_of_a_step_are_its_blocks_whatever_the_devices(blocks, batch, step_blocks, devices, first):
    options = {"per_device_train_batch_size": batch, "train_batch_size": step_blocks}
    alone, course = schedule(blocks, **options), schedule(blocks, devices, **options)
    assert (course.total_steps, course.identity()) == (alone.total_steps, alone.identity())
    shares = zip(*(course.shares(rank, first) for rank in range(devices)), strict=True)
    for (step, whole), of_devices in zip(alone.steps(first), shares, strict=True):
        assert {number for number, _ in of_devices} == {step}
        in_turn = [rows for batches in zip(*(found for _, found in of_devices), strict=True) for rows in batches]
        assert np.concatenate(in_turn).tolist() == np.concatenate(whole).tolist()
        assert max(map(len, in_turn)) <= batch
        assert len(of_devices[0][1]) <= course.accumulation


@given(blocks=st.integers(9, 120), batch=SIZES, step_blocks=SIZES, devices=SIZES, first=st.integers(0, 60))
def test_the_batches_of_an_epoch_are_given_from_any_of_them_on(blocks, batch, step_blocks, devices, first):
    course = schedule(blocks, devices, per_device_train_batch_size=batch, train_batch_size=step_blocks)
    for rank in range(devices):
        assert str([*course.batches(1, rank, first)]) == str([*course.batches(1, rank)][first:])


def test_a_step_has_as_many_blocks_for_each_device_as_it_can():
    course = schedule(58, 3, per_device_train_batch_size=8, train_batch_size=8)
    assert [[len(rows) for rows in next(course.shares(rank))[1]] for rank in range(3)] == [[3], [3], [2]]
    order = epoch_order(58, seed=42, epoch=0)
    assert next(course.shares(1))[1][0].tolist() == order[3:6].tolist()


def test_without_train_batch_size_each_device_has_its_batches():
    course = schedule(58, 2, per_device_train_batch_size=4, gradient_accumulation_steps=3)
    assert (course.step_blocks, course.accumulation, course.devices) == (24, 3, 2)


@given(devices=SIZES, local=SIZES, blocks=st.integers(0, 40), size=SIZES)
def test_an_evaluation_scores_each_block_on_one_device(devices, local, blocks, size):
    rows, seen, reports = np.arange(blocks), [], []
    for rank in range(0, devices * local, local):
        reports.append([])
        world = World(rank=rank, size=devices * local, local=local)
        score_in_batches(rows, size, reports[-1].append, lambda batch: _kept(batch, seen), world=world)
    assert sorted(seen) == rows.tolist()
    assert all(found == reports[0] for found in reports)
    assert sum(event.blocks for event in reports[0]) == blocks


def _kept(batch, seen):
    seen.extend(batch.tolist())
    return Score(loss_sum=0.0, correct=0, tokens=len(batch))


def test_the_first_device_draws_what_one_device_would_and_each_other_something_else():
    course = schedule(58)
    assert course.seed_at(3, 0) == course.seed_at(3)
    assert len({course.seed_at(step, rank) for step in range(3) for rank in range(3)}) == 9


def test_processes_that_differ_are_all_told_which_one_and_in_what():
    same = {"data": "abc", "seed": "42"}
    check_same([same, same])
    with pytest.raises(OptionError, match=r"process 2 differs from process 0 in data, xyz in place of abc: start all"):
        check_same([same, same, {**same, "data": "xyz"}])


def test_another_clm_is_named_before_what_it_has_that_this_one_has_not():
    old, new = {"version of clm": "1.0"}, {"version of clm": "1.1", "a_new_option": "yes"}
    with pytest.raises(OptionError, match=r"process 1 differs from process 0 in version of clm, 1\.1 in place of 1\.0"):
        check_same([old, new])
    with pytest.raises(OptionError, match="in a_new_option, yes in place of nothing"):
        check_same([{}, {"a_new_option": "yes"}])
