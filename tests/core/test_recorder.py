"""What the recorder makes of a training's events: means between reports, over an interruption too."""

import json

import pytest

from clm_core.backend import BatchScored, StepDone
from clm_core.config import TrainConfig
from clm_core.errors import DivergedError, StoppedError, TrainingError
from clm_core.runs.history import PENDING_FILE, Recorder
from clm_core.runs.spikes import Spikes
from clm_core.schedule import Schedule
from clm_core.screen.progress import Progress
from clm_core.stopping import EvaluationAbandonedError, Stop


@pytest.fixture
def new_recorder(tmp_path):
    def build(**options):
        schedule = Schedule.from_config(TrainConfig(max_steps=4, logging_steps=2), blocks=64)
        sizes = {"block_size": 8, "validation_blocks": 0, "bytes_per_token": 1.0}
        return Recorder(schedule, tmp_path, Progress(), **sizes, **options)

    return build


def follow(recorder, steps, auxiliary):
    with recorder.recording():
        for step in steps:
            recorder(StepDone(step=step, loss=float(step), auxiliary_loss=step / 8 if auxiliary else None))
    return [{name: line.get(name) for name in ("step", "loss", "auxiliary_loss")} for line in recorder.history]


@pytest.mark.parametrize("auxiliary", [False, True])
def test_a_report_has_the_mean_of_the_losses_and_of_what_was_added_to_them(new_recorder, tmp_path, auxiliary):
    recorder = new_recorder()
    expected = [(2, 1.5, 0.1875), (4, 3.5, 0.4375)] if auxiliary else [(2, 1.5, None), (4, 3.5, None)]
    assert [tuple(line.values()) for line in follow(recorder, range(1, 5), auxiliary)] == expected
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert (lines, "auxiliary_loss" in lines[0]) == (recorder.history, auxiliary)


@pytest.mark.parametrize("auxiliary", [False, True])
def test_the_mean_goes_on_over_an_interruption(new_recorder, tmp_path, auxiliary):
    before, checkpoint = new_recorder(), tmp_path / "checkpoint-3"
    checkpoint.mkdir()
    whole = follow(before, [1, 2, 3], auxiliary)
    before.add_to_checkpoint(checkpoint)
    rest = follow(new_recorder(resume_from=checkpoint, start_step=3), [4], auxiliary)
    assert rest == [*whole, {"step": 4, "loss": 3.5, "auxiliary_loss": 0.4375 if auxiliary else None}]


def test_the_list_of_losses_of_an_earlier_clm_is_read(new_recorder, tmp_path):
    (tmp_path / PENDING_FILE).write_text("[3.0]")
    assert follow(new_recorder(resume_from=tmp_path, start_step=3), [4], False)[-1]["loss"] == 3.5


def test_a_spike_ends_the_training_and_begins_before_an_interruption(new_recorder, tmp_path):
    recorder = new_recorder(spikes=Spikes(2.0, 2))
    with recorder.recording():
        for step, loss in ((1, 2.0), (2, 4.1)):
            recorder(StepDone(step=step, loss=loss))
    recorder.add_to_checkpoint(tmp_path)
    resumed = new_recorder(spikes=Spikes(2.0, 2), resume_from=tmp_path, start_step=2)
    with (
        pytest.raises(DivergedError, match=r"stop_on_loss_spike 2: .* 2 steps in a row") as caught,
        resumed.recording(),
    ):
        resumed(StepDone(step=3, loss=4.2))
    assert caught.value.step == 1  # Whose update made the weights of the first high loss.


def test_what_is_added_ends_the_training_where_it_is_no_number(new_recorder):
    recorder = new_recorder()
    with pytest.raises(TrainingError, match="the auxiliary loss is inf at step 1"), recorder.recording():
        recorder(StepDone(step=1, loss=1.0, auxiliary_loss=float("inf")))


def test_a_training_that_is_to_stop_before_its_first_step_ends_in_its_first_evaluation(new_recorder):
    recorder = new_recorder(stop=Stop(signum=15))
    with pytest.raises(StoppedError), recorder.recording():
        recorder(BatchScored(blocks=1))
    with recorder.recording():
        recorder(StepDone(step=1, loss=1.0))
        with pytest.raises(EvaluationAbandonedError):
            recorder(BatchScored(blocks=1))
