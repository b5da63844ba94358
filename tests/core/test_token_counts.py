"""Tokens that count: how many the first steps have, and how many steps a budget of them has."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from clm_core.config import TrainConfig
from clm_core.errors import OptionError
from clm_core.schedule import Schedule, TokenCount


@pytest.mark.parametrize("drop_last", [False, True])
def test_the_tokens_of_the_first_steps_are_those_that_count(drop_last):
    config = TrainConfig(
        max_steps=11, train_batch_size=4, per_device_train_batch_size=3, dataloader_drop_last=drop_last
    )
    schedule, of_blocks = Schedule.from_config(config, blocks=10), np.arange(1, 11)
    count = TokenCount(schedule, 15, of_blocks)
    so_far = 0
    for step, batches in schedule.steps():
        so_far += int(of_blocks[np.concatenate(batches)].sum())
        assert count.until(step) == so_far
        assert count.steps_within(so_far) == count.steps_within(so_far + 1) == step
        assert count.steps_within(so_far - 1) == step - 1


@pytest.mark.parametrize("seed", range(5))
def test_a_budget_is_used_up_where_the_first_epoch_has_more_tokens_than_the_others(seed):
    config = TrainConfig(
        max_steps=1, train_batch_size=2, per_device_train_batch_size=2, dataloader_drop_last=True, seed=seed
    )
    count = TokenCount(Schedule.from_config(config, blocks=3), 15, np.array([1, 1, 15]))
    steps = count.steps_within(1000)
    assert count.until(steps) <= 1000 < count.until(steps + 1)


def test_a_budget_of_tokens_is_one_of_those_that_count():
    config = TrainConfig(max_trained_tokens=40, train_batch_size=2, warmup_steps=2, block_size=16)
    schedule = Schedule.from_config(config, 10, of_blocks=np.full(10, 7))
    assert (schedule.total_steps, schedule.warmup_steps) == (2, 2)
    assert Schedule.from_config(replace(config, warmup_steps=0), 10).total_steps == 1
    with pytest.raises(OptionError, match="max_trained_tokens 40 is less than the 56 that count in the first step"):
        Schedule.from_config(config, 10, of_blocks=np.full(10, 28))


@given(
    blocks=st.integers(1, 40),
    step=st.integers(1, 12),
    batch=st.integers(1, 12),
    tokens=st.integers(1, 9000),
    drop_last=st.booleans(),
)
def test_a_budget_of_all_tokens_is_one_of_as_many_in_each_block(blocks, step, batch, tokens, drop_last):
    assume(min(batch, step) <= blocks)
    config = TrainConfig(
        max_trained_tokens=tokens,
        block_size=16,
        train_batch_size=step,
        per_device_train_batch_size=batch,
        dataloader_drop_last=drop_last,
    )
    try:
        steps = Schedule.from_config(config, blocks, of_blocks=np.full(blocks, 15)).total_steps
    except OptionError:
        steps = 0
    kept = Schedule.from_config(replace(config, max_trained_tokens=None), blocks).blocks_per_epoch
    epochs, rest = divmod(tokens // 15, kept)
    assert steps == epochs * -(-kept // step) + rest // step
    if steps:
        assert Schedule.from_config(config, blocks).total_steps == steps
