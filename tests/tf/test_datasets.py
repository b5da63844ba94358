"""Each block comes when the schedule says, and none gets lost."""

from itertools import chain

import numpy as np
import pytest

from clm_tf.datasets import evaluation_dataset, training_dataset


def scheduled(schedule, steps):
    """The rows of each batch of the first `steps` updates."""
    batches = list(chain.from_iterable(schedule.batches(epoch) for epoch in range(schedule.epochs + 1)))
    epoch, batch = schedule.first_batch(steps)
    return batches[: epoch * schedule.batches_per_epoch + batch]


def test_an_epoch_has_each_block_once_and_a_short_batch_at_its_end(new_job, blocks):
    batches = list(training_dataset(blocks, new_job(num_train_epochs=1).schedule))
    assert [len(batch["input_ids"]) for batch in batches] == [4] * 6 + [3]
    found = np.concatenate([batch["input_ids"].numpy() for batch in batches])
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(blocks, axis=0))


@pytest.mark.parametrize("accumulation", [1, 2, 3])
@pytest.mark.parametrize("start", [0, 1, 3, 5])
def test_batches_follow_the_schedule_from_any_step_to_its_last(new_job, blocks, accumulation, start):
    schedule = new_job(max_steps=6, gradient_accumulation_steps=accumulation).schedule
    expected = scheduled(schedule, 6)[len(scheduled(schedule, start)) :]
    found = list(training_dataset(blocks, schedule, start_step=start))
    assert len(found) == len(expected)
    for batch, rows in zip(found, expected, strict=True):
        np.testing.assert_array_equal(batch["input_ids"], blocks[rows])
        np.testing.assert_array_equal(batch["labels"], blocks[rows])


def test_keras_learns_the_number_of_batches_beforehand(new_job, blocks):
    dataset = training_dataset(blocks, new_job(num_train_epochs=1.5).schedule)
    assert int(dataset.cardinality()) == len(list(dataset)) == 11


def test_the_evaluation_has_all_blocks_in_order(blocks):
    batches = list(evaluation_dataset(blocks, 8))
    assert [len(batch["input_ids"]) for batch in batches] == [8, 8, 8, 3]
    for name in ("input_ids", "labels"):
        np.testing.assert_array_equal(np.concatenate([batch[name] for batch in batches]), blocks)
