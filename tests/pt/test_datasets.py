"""Each block is fed when the schedule says, and none gets lost."""

from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clm_core import Schedule, TrainConfig
from clm_pt.datasets import IGNORED, BlockDataset, EpochBatches, collate
from clm_pt.training import create_trainer, train


def scheduled(schedule, start=0):
    """The rows of each batch from a step to the last."""
    epoch, skipped = schedule.first_batch(start)
    last_epoch, last = schedule.first_batch(schedule.total_steps)
    batches = list(chain.from_iterable(schedule.batches(number) for number in range(last_epoch + 1)))
    return batches[epoch * schedule.batches_per_epoch + skipped : last_epoch * schedule.batches_per_epoch + last]


@pytest.fixture
def fed(monkeypatch):
    """The batches that the model gets in a training."""
    found = []
    from clm_pt.trainer import ScheduledTrainer

    step = ScheduledTrainer.training_step

    def remember(self, model, inputs, *args, **kwargs):
        found.append(inputs["input_ids"].numpy())
        return step(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(ScheduledTrainer, "training_step", remember)
    return found


def assert_fed(fed, blocks, rows):
    assert len(fed) == len(rows)
    for batch, expected in zip(fed, rows, strict=True):
        np.testing.assert_array_equal(batch, blocks[expected])


def test_the_first_token_of_a_block_is_predicted_by_nothing(blocks):
    batch = collate(blocks[:3])
    assert (batch["labels"][:, 0] == IGNORED).all()
    np.testing.assert_array_equal(batch["labels"][:, 1:], blocks[:3, 1:])
    np.testing.assert_array_equal(batch["input_ids"], blocks[:3])
    assert batch["attention_mask"].all()
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_a_batch_is_a_copy_of_the_file_on_disk(blocks):
    assert not np.shares_memory(collate(blocks)["input_ids"].numpy(), blocks)


@pytest.mark.parametrize("accumulation", [1, 2, 3])
def test_two_epochs_follow_the_schedule_with_the_short_batch_at_the_end_of_each(new_job, blocks, fed, accumulation):
    job = new_job(max_steps=-1, num_train_epochs=2, gradient_accumulation_steps=accumulation)
    create_trainer(job).train()
    assert [len(batch) for batch in fed] == [4, 4, 4, 4, 4, 4, 3] * 2
    assert_fed(fed, blocks, scheduled(job.schedule))


@pytest.mark.parametrize(("step", "accumulation"), [(3, 1), (7, 1), (9, 1), (2, 2), (5, 2)])
def test_a_continued_training_begins_with_the_next_block(new_job, blocks, fed, step, accumulation):
    options = {"max_steps": 11, "gradient_accumulation_steps": accumulation}
    whole = new_job(**options, save_strategy="steps", save_steps=step)
    train(whole)
    fed.clear()
    train(new_job(**options, resume_from=whole.output_dir / f"checkpoint-{step}"))
    assert_fed(fed, blocks, scheduled(whole.schedule, step))


@given(blocks=st.integers(8, 90), first=st.integers(0, 60), accumulation=st.integers(1, 3), devices=st.integers(1, 3))
def test_a_batch_of_a_step_that_was_made_before_cannot_be_trained_on(blocks, first, accumulation, devices):
    config = TrainConfig(max_steps=61, per_device_train_batch_size=2, gradient_accumulation_steps=accumulation)
    schedule = Schedule.from_config(config, blocks=blocks, devices=devices)
    epoch, done = schedule.first_batch(first)
    batches = EpochBatches(schedule, devices - 1, first)
    for number in (epoch, epoch + 1):
        batches.set_epoch(number)
        passed = done if number == epoch else 0
        expected = [rows.tolist() for rows in schedule.batches(number, devices - 1)]
        assert list(batches) == [[blocks]] * passed + expected[passed:]
    with pytest.raises(IndexError):
        BlockDataset(np.zeros((blocks, 4))).__getitems__([blocks])
