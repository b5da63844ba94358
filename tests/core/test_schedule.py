"""The schedule of a training: what must hold for any number of blocks, batches and steps."""

import math
import re
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core import Schedule, TrainConfig, epoch_order
from clm_core.errors import DataError, OptionError
from clm_core.options import list_options
from clm_core.schedule import schedule as module

COUNTS = st.integers(1, 40)
KINDS = get_args(next(option.kind for option in list_options(TrainConfig) if option.name == "lr_scheduler_type"))
NEEDED = {
    "cosine_with_min_lr": "min_lr_rate=0.1",
    "cosine_warmup_with_min_lr": "min_lr_rate=0.1",
    "warmup_stable_decay": "num_decay_steps=0",
}
"""Arguments that a schedule cannot do without."""
ORDER = [[4, 1, 3, 6, 0, 7, 2, 5], [1, 2, 5, 3, 6, 0, 4, 7], [3, 2, 1, 6, 0, 7, 4, 5]]


def schedule(blocks=100, **options):
    needed = {"lr_scheduler_kwargs": NEEDED.get(options.get("lr_scheduler_type"))}
    config = TrainConfig(**{"per_device_train_batch_size": 4, **needed, **options})
    return Schedule.from_config(config, blocks=blocks)


@given(st.integers(1, 500), st.integers(0, 2**32 - 1), st.integers(0, 50))
def test_the_order_of_an_epoch_has_each_block_once(blocks, seed, epoch):
    assert sorted(epoch_order(blocks, seed=seed, epoch=epoch)) == list(range(blocks))


def test_the_order_is_the_same_on_every_machine_and_in_every_version():
    assert epoch_order(8, seed=42, epoch=0).tolist() == ORDER[0]
    assert epoch_order(8, seed=42, epoch=1).tolist() == ORDER[1]
    assert epoch_order(8, seed=0, epoch=0).tolist() == ORDER[2]


@given(blocks=st.integers(1, 200), batch=COUNTS, accumulation=COUNTS)
def test_an_epoch_trains_on_every_block_once_and_drops_none(blocks, batch, accumulation):
    batch = min(batch, blocks)
    course = schedule(blocks, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation)
    batches = list(course.batches(3))
    assert sorted(np.concatenate(batches)) == list(range(blocks))
    assert len(batches) == course.batches_per_epoch
    assert [len(rows) for rows in batches[:-1]] == [batch] * (len(batches) - 1)
    assert course.steps_per_epoch == math.ceil(len(batches) / accumulation)


@given(blocks=st.integers(1, 200), batch=COUNTS, step_blocks=COUNTS, drop_last=st.booleans())
def test_a_step_takes_as_many_blocks_as_was_asked_for_whatever_fits_into_a_batch(blocks, batch, step_blocks, drop_last):
    blocks = max(blocks, min(batch, step_blocks))
    options = {"per_device_train_batch_size": batch, "dataloader_drop_last": drop_last}
    whole = schedule(blocks, train_batch_size=step_blocks, **options)
    batches = list(whole.batches(3))
    steps = [batches[i : i + whole.accumulation] for i in range(0, len(batches), whole.accumulation)]
    rows = [sum(map(len, step)) for step in steps]
    assert rows == [whole.rows_of_step(step) for step in range(whole.steps_per_epoch)]
    assert rows[:-1] == [step_blocks] * (len(rows) - 1)
    assert np.concatenate(batches).tolist() == epoch_order(blocks, seed=42, epoch=3)[: whole.blocks_per_epoch].tolist()
    assert max(map(len, batches)) <= batch
    assert len(batches) == whole.batches_per_epoch
    assert blocks - whole.blocks_per_epoch < (batch if drop_last else 1)


@given(batch=COUNTS, step_blocks=COUNTS)
def test_the_steps_are_the_same_whatever_fits_into_a_batch(batch, step_blocks):
    one, other = (
        schedule(100, train_batch_size=step_blocks, per_device_train_batch_size=size) for size in (batch, step_blocks)
    )
    assert np.concatenate(list(one.batches(0))).tolist() == np.concatenate(list(other.batches(0))).tolist()
    assert (one.total_steps, one.identity()) == (other.total_steps, other.identity())


def test_without_validation_blocks_nothing_is_ever_evaluated():
    never = Schedule.from_config(TrainConfig(max_steps=4), blocks=9, validation=False)
    assert [step for step in range(5) if never.evaluates_at(step)] == []


@given(blocks=st.integers(4, 100), accumulation=COUNTS, step=st.integers(0, 300))
def test_a_continued_training_begins_where_an_uninterrupted_one_would_be(blocks, accumulation, step):
    course = schedule(blocks, gradient_accumulation_steps=accumulation)
    epoch, batch = course.first_batch(step)
    assert epoch * course.steps_per_epoch + batch // accumulation == step
    assert batch % accumulation == 0
    assert batch < course.batches_per_epoch


@given(blocks=st.integers(4, 40), accumulation=COUNTS, steps=st.integers(1, 60), first=st.integers(0, 60))
def test_the_steps_take_the_batches_of_the_epochs_in_turn_from_any_step_on(blocks, accumulation, steps, first):
    course = schedule(blocks, gradient_accumulation_steps=accumulation, max_steps=steps)
    found = list(course.steps())
    assert [step for step, _ in found] == list(range(1, steps + 1))
    taken = [rows.tolist() for _, batches in found for rows in batches]
    assert taken == [rows.tolist() for epoch in range(course.epochs) for rows in course.batches(epoch)][: len(taken)]
    assert all(len(batches) == accumulation for step, batches in found if step % course.steps_per_epoch)
    assert str(list(course.steps(first))) == str(found[first:])


@pytest.mark.parametrize(
    ("options", "steps", "epochs"),
    [
        ({}, 75, 3),
        ({"num_train_epochs": 1}, 25, 1),
        ({"num_train_epochs": 0.5}, 13, 1),
        ({"num_train_epochs": 1.5}, 38, 2),
        ({"num_train_epochs": 0.0001}, 1, 1),
        ({"max_steps": 7}, 7, 1),
        ({"max_steps": 60, "num_train_epochs": 1}, 60, 3),
        ({"gradient_accumulation_steps": 3, "num_train_epochs": 2}, 18, 2),
    ],
)
def test_epochs_and_steps_come_to_the_steps_that_the_trainer_makes(options, steps, epochs):
    assert (schedule(**options).total_steps, schedule(**options).epochs) == (steps, epochs)


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({}, {0: 1.0, 25: 0.75, 50: 0.5, 99: 0.01}),
        ({"warmup_steps": 10}, {0: 0.0, 5: 0.5, 10: 1.0, 55: 0.5, 99: 1 / 90}),
        ({"warmup_ratio": 0.1}, {0: 0.0, 5: 0.5, 10: 1.0, 55: 0.5}),
        (
            {"lr_scheduler_type": "cosine"},
            {0: 1.0, 25: 0.5 + 0.5 * math.sqrt(0.5), 50: 0.5, 75: 0.5 - 0.5 * math.sqrt(0.5)},
        ),
        ({"lr_scheduler_type": "constant"}, {0: 1.0, 99: 1.0}),
        ({"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 4}, {0: 0.0, 1: 0.25, 4: 1.0, 99: 1.0}),
    ],
    ids=str,
)
def test_the_learning_rate_is_that_of_transformers_schedulers(options, rates):
    course = schedule(max_steps=100, learning_rate=1.0, **options)
    assert {step: course.learning_rate_at(step) for step in rates} == pytest.approx(rates)


@pytest.mark.parametrize("kind", KINDS)
def test_every_scheduler_that_can_be_chosen_has_its_formula(kind):
    assert schedule(max_steps=9, lr_scheduler_type=kind).learning_rates().shape == (9,)


@pytest.mark.parametrize("kind", KINDS)
def test_the_rates_of_all_steps_are_those_of_each(kind, monkeypatch):
    monkeypatch.setattr(module, "RATES_AT_ONCE", 7)
    warmup = {} if kind == "constant" else {"warmup_steps": 5}
    course = schedule(max_steps=40, lr_scheduler_type=kind, learning_rate=0.3, **warmup)
    assert course.learning_rates().tolist() == [course.learning_rate_at(step) for step in range(40)]


def test_a_scheduler_without_a_formula_is_no_other_one():
    with pytest.raises(ValueError, match="no formula for lr_scheduler_type greedy"):
        replace(schedule(), lr_scheduler_type="greedy").learning_rate_at(5)


@pytest.mark.parametrize(
    ("kind", "arguments", "says"),
    [
        ("linear", "num_cycles=2", "linear has no argument num_cycles: it takes none"),
        ("cosine", "cycles=2", "cosine has no argument cycles: it takes num_cycles"),
        ("cosine", "num_cycles=many", "num_cycles is a number above 0, not many"),
        ("cosine", "num_cycles=0", "num_cycles is a number above 0, not 0"),
        ("cosine", "num_cycles=1,num_cycles=2", "num_cycles is given twice"),
        ("cosine", "num_cycles", "'num_cycles' is not of the form KEY=VALUE"),
        ("cosine", '{"num_cycles": ', "neither KEY=VALUE,... nor an object of JSON"),
        ("polynomial", "lr_end=1", "lr_end 1 is not below learning_rate 2e-05"),
        ("cosine_with_min_lr", None, "it needs either min_lr=... or min_lr_rate=..."),
        ("cosine_with_min_lr", "min_lr=1e-6,min_lr_rate=0.1", "it needs either"),
        ("cosine_with_min_lr", "min_lr=1", "min_lr 1 is above learning_rate 2e-05"),
        ("cosine_with_min_lr", "min_lr_rate=1.5", "min_lr_rate is a number from 0 to 1, not 1.5"),
        ("warmup_stable_decay", None, "warmup_stable_decay needs num_decay_steps=..."),
        ("warmup_stable_decay", "num_decay_steps=2.5", "num_decay_steps is a whole number, 0 or above, not 2.5"),
        ("warmup_stable_decay", "num_decay_steps=76", "num_decay_steps 76 is more than the 75 steps after the warmup"),
        ("warmup_stable_decay", "num_decay_steps=9,decay_type=sqrt", "decay_type is one of linear, cosine, 1-sqrt"),
    ],
)
def test_arguments_that_a_schedule_cannot_have_are_refused(kind, arguments, says):
    with pytest.raises(OptionError, match="lr_scheduler_kwargs .*" + re.escape(says)):
        schedule(lr_scheduler_type=kind, lr_scheduler_kwargs=arguments)


def test_arguments_of_a_schedule_may_be_an_object_of_json_as_in_transformers():
    one, other = (
        schedule(lr_scheduler_type="cosine", lr_scheduler_kwargs=given)
        for given in ("num_cycles=1.5", '{"num_cycles": 1.5}')
    )
    assert one.learning_rates().tolist() == other.learning_rates().tolist()


@given(
    steps=st.integers(1, 500),
    share=st.floats(0, 0.99),
    kind=st.sampled_from([kind for kind in KINDS if kind != "constant"]),
)
def test_the_learning_rate_rises_to_its_peak_and_never_again(steps, share, kind):
    course = schedule(max_steps=steps, warmup_ratio=share, lr_scheduler_type=kind, learning_rate=1.0)
    rates = [course.learning_rate_at(step) for step in range(steps)]
    top = course.warmup_steps
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert all(0 <= rate <= 1 for rate in rates)


def test_things_happen_at_their_steps_and_at_the_end():
    course = schedule(
        max_steps=10, logging_steps=4, eval_strategy="steps", eval_steps=3, save_strategy="steps", save_steps=5
    )
    steps = range(11)
    assert [step for step in steps if step and course.logs_at(step)] == [4, 8, 10]
    assert [step for step in steps if course.evaluates_at(step)] == [0, 3, 6, 9, 10]
    assert [step for step in steps if course.saves_at(step)] == [5, 10]


def test_by_default_it_is_validated_and_saved_at_the_end_of_each_epoch_once():
    course = schedule(num_train_epochs=2)
    assert [step for step in range(51) if course.evaluates_at(step)] == [0, 25, 50]
    assert [step for step in range(51) if course.saves_at(step)] == [25, 50]


def test_no_means_never():
    course = schedule(eval_strategy="no", save_strategy="no")
    assert not any(course.evaluates_at(step) or course.saves_at(step) for step in range(76))


def test_too_few_blocks_for_a_batch_are_refused_with_the_batch_that_fits():
    with pytest.raises(DataError, match=r"3 training blocks .* use --per-device-train-batch-size 3"):
        schedule(3)
    assert schedule(3, per_device_train_batch_size=3).total_steps == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup_steps": 5, "warmup_ratio": 0.1}, "cannot be combined"),
        ({"warmup_steps": 76}, "more than the 75 steps"),
        ({"lr_scheduler_type": "constant", "warmup_steps": 5}, "use constant_with_warmup"),
    ],
)
def test_a_warmup_that_cannot_be_honoured_is_refused(options, message):
    with pytest.raises(OptionError, match=message):
        schedule(**options)


@given(st.integers(1, 90), st.integers(1, 9), st.integers(1, 4))
def test_no_batch_is_short_where_the_last_one_is_left_out(blocks, batch, accumulation):
    options = {"per_device_train_batch_size": min(batch, blocks), "gradient_accumulation_steps": accumulation}
    schedule = Schedule.from_config(TrainConfig(dataloader_drop_last=True, **options), blocks=blocks)
    batches = list(schedule.batches(1))
    assert {len(rows) for rows in batches} == {schedule.batch_size}
    assert len(batches) == schedule.batches_per_epoch == blocks // schedule.batch_size
    assert schedule.steps_per_epoch == -(-len(batches) // accumulation)
    assert schedule.blocks_per_epoch == len(batches) * schedule.batch_size


@pytest.mark.parametrize(
    "options", [{"learning_rate": 1e38}, {"learning_rate": 1e30, "weight_decay": 1e9}, {"adam_beta1": 1 - 1e-16}]
)
def test_an_update_beyond_float32_is_refused(options):
    with pytest.raises(OptionError, match="makes updates beyond float32: use a lower learning rate"):
        schedule(**{"learning_rate": 1e25, **options})


def test_a_step_draws_by_the_seed_and_its_number_alone_whatever_the_machine():
    one, other = (schedule(seed=seed) for seed in (1, 2))
    drawn = [each.seed_at(step) for each in (one, other) for step in range(50)]
    assert len(set(drawn)) == 100
    assert all(0 <= seed < 2**63 for seed in drawn)
    assert one.seed_at(3) == schedule(seed=1, max_steps=99, gradient_accumulation_steps=4).seed_at(3)
    assert one.seed_at(3) == 5220146013781160048
