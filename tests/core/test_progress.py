"""What a person sees of the work: how far it got, and a pace that the first steps do not falsify."""

import io
import re
import time

import pytest

from clm_core.backend import StepDone
from clm_core.config import TrainConfig
from clm_core.runs.history import Recorder
from clm_core.runs.memory import peak_memory
from clm_core.schedule import Schedule
from clm_core.screen.progress import PlainProgress, Progress, TerminalProgress


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on when it is told to."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def pass_by(seconds):
        now[0] += seconds

    return pass_by


class Terminal(io.StringIO):
    def isatty(self):
        return True


def last_line(stream):
    return re.split(r"[\r\n]+", stream.getvalue().rstrip())[-1]


def test_the_time_left_is_at_the_pace_after_the_first_steps(clock):
    lines = io.StringIO()
    with PlainProgress(lines).bar("training", 102, "step") as bar:
        for seconds in (0, 60, 11):  # Steps before a resumption, the first step, the second.
            clock(seconds)
            bar.advance()
    assert lines.getvalue().splitlines()[0] == "training: 2 of 102 steps, 60 s"
    assert "3 of 102 steps, 71 s, 18 min left" in lines.getvalue()


@pytest.mark.parametrize("width", [80, 100])
def test_a_bar_has_room_and_says_a_pace_once(clock, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    stream = Terminal()
    with TerminalProgress(stream).bar("training", 12_345, "step") as bar:
        for _ in range(6):
            clock(0.5)
            bar.advance(300)
        bar.note("loss 5.742, 7,311 tokens/s")
        shown = last_line(stream)
    assert re.search(r"1,800/12,345 \[.*<00:17, loss 5.742, 7,311 tokens/s\]", shown)
    assert "steps/s" not in shown


def test_the_steps_before_a_resumption_are_shown_before_the_next_is_done(clock):
    stream = Terminal()
    with TerminalProgress(stream).bar("training", 40, "step") as bar:
        bar.advance(10)
        assert "10/40" in last_line(stream)


def test_units_are_words(clock):
    stream = Terminal()
    with TerminalProgress(stream).bar("preparing", None, "document") as bar:
        first = last_line(stream)
        for _ in range(3):
            clock(2)
            bar.advance(500)
        bar.note("")
        assert last_line(stream) == "preparing: 1,500 documents [00:00, 250 documents/s]"
    assert "0 documents" in first


def test_the_peak_of_memory_is_the_accelerators_or_that_of_the_process(tmp_path):
    schedule = Schedule.from_config(TrainConfig(max_steps=2, logging_steps=1), blocks=16)
    followed = Recorder(schedule, tmp_path, Progress(), block_size=11, validation_blocks=0, bytes_per_token=1.0)
    with followed.recording():
        followed(StepDone(step=1, loss=1.0))
        followed(StepDone(step=2, loss=1.0, peak_memory_bytes=7))
    of_process, of_accelerator = (line["peak_memory_bytes"] for line in followed.history)
    assert of_process == pytest.approx(peak_memory(), rel=0.1)
    assert (of_accelerator, followed.peak_memory_bytes) == (7, 7)


def test_tokens_a_second_are_those_since_the_last_report(clock, tmp_path):
    config = TrainConfig(max_steps=6, logging_steps=2, per_device_train_batch_size=1)
    schedule = Schedule.from_config(config, blocks=6)
    followed = Recorder(schedule, tmp_path, Progress(), block_size=11, validation_blocks=0, bytes_per_token=1.0)
    with followed.recording():
        for step, seconds in enumerate((100, 1, 2, 3, 5, 5), 1):
            clock(seconds)
            followed(StepDone(step=step, loss=1.0))
    rates = [line["tokens_per_second"] for line in followed.history]
    assert rates == [10.0, 4.0, 2.0]  # The first without the step in which a framework traces.
