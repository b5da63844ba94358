"""Each block comes when the schedule says, and none gets lost."""

import numpy as np
import pytest

from clm_tf.datasets import evaluation_dataset, training_dataset


def test_an_epoch_has_each_block_once_and_a_short_step_at_its_end(new_job, blocks):
    steps = list(training_dataset(blocks, new_job(num_train_epochs=1, gradient_accumulation_steps=2).schedule))
    assert [len(step["input_ids"]) for step in steps] == [8] * 3 + [3]
    found = np.concatenate([step["input_ids"].numpy() for step in steps])
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(blocks, axis=0))


@pytest.mark.parametrize("accumulation", [1, 2, 3])
@pytest.mark.parametrize("start", [0, 1, 3, 5])
def test_each_batch_of_keras_is_a_step_from_any_step_to_the_last(new_job, blocks, accumulation, start):
    schedule = new_job(max_steps=6, gradient_accumulation_steps=accumulation).schedule
    found = list(training_dataset(blocks, schedule, start_step=start))
    for step, (_, batches) in zip(found, schedule.steps(start), strict=True):
        np.testing.assert_array_equal(step["input_ids"], blocks[np.concatenate(batches)])
        np.testing.assert_array_equal(step["labels"], step["input_ids"])


def test_keras_learns_the_number_of_steps_beforehand(new_job, blocks):
    dataset = training_dataset(blocks, new_job(num_train_epochs=1.5).schedule)
    assert int(dataset.cardinality()) == len(list(dataset)) == 11


def test_the_evaluation_has_all_blocks_in_order(blocks):
    batches = list(evaluation_dataset(blocks, 8))
    assert [len(batch["input_ids"]) for batch in batches] == [8, 8, 8, 3]
    for name in ("input_ids", "labels"):
        np.testing.assert_array_equal(np.concatenate([batch[name] for batch in batches]), blocks)
