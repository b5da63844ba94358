"""A spike of the loss: several losses in a row far above the running median of those before them."""

import json
import math
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.runs.spikes import WINDOW, Spikes

LOSSES = st.lists(st.floats(0, 100) | st.sampled_from([1.0, 50.0]), max_size=80)


def spikes(factor, patience=3):
    return Spikes(factor, patience)


def first_stop(losses, followed):
    return next((step for step, loss in enumerate(losses, start=1) if followed.add(loss)), None)


@pytest.mark.parametrize(
    ("losses", "patience", "step"),
    [
        ([2.0, 2.0, 9.0, 9.0, 9.0], 3, 5),
        ([2.0, 2.0, 9.0, 9.0, 2.0, 9.0], 3, None),
        ([2.0, 4.0, 4.0, 4.0], 3, None),
        ([2.0, 4.1], 1, 2),
        ([9.0, 2.0, 2.0, 2.0, 9.0], 1, 5),
        ([2.0] * 60 + [9.0] * 40, 40, 100),
    ],
)
def test_a_spike_is_as_many_losses_in_a_row_above_the_factor_times_the_median(losses, patience, step):
    assert first_stop(losses, spikes(2.0, patience)) == step


def test_the_median_is_of_the_last_losses_alone():
    followed = spikes(2.0)
    for loss in [100.0] * 30 + [1.0] * WINDOW:
        followed.add(loss)
    assert followed.median == 1.0


@given(LOSSES, st.integers(0, 80))
def test_a_resumed_training_decides_the_same(losses, cut):
    unbroken, first, second = spikes(3.0, 2), spikes(3.0, 2), spikes(3.0, 2)
    whole = [unbroken.add(loss) for loss in losses]
    parts = [first.add(loss) for loss in losses[:cut]]
    second.restore(json.loads(json.dumps(first.to_keep())))
    assert parts + [second.add(loss) for loss in losses[cut:]] == whole


@given(LOSSES, st.floats(1.001, 10), st.integers(1, 5))
def test_it_stops_where_the_definition_says(losses, factor, patience):
    before, row, expected = [], 0, None
    for step, loss in enumerate(losses, start=1):
        above = bool(before) and loss > factor * median(before[-WINDOW:])
        row = row + 1 if above else 0
        before += [] if above else [loss]
        expected = expected or (step if row >= patience else None)
    assert first_stop(losses, spikes(factor, patience)) == expected


@given(LOSSES)
def test_without_a_factor_no_loss_is_too_high(losses):
    assert first_stop([*losses, math.inf], spikes(None)) is None
