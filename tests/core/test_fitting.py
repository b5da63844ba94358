"""A batch that does not fit in memory is halved until it does, and the steps stay what they are."""

from dataclasses import replace

import pytest

from clm_core.backend import BatchScored, StepDone
from clm_core.errors import OptionError, is_out_of_memory
from clm_core.registry import get_backend

STEP = {"max_steps": 3, "per_device_train_batch_size": 12, "train_batch_size": 12}


class OutOfMemoryError(RuntimeError):
    """PyTorch has one of this name."""


@pytest.fixture
def limited(train, monkeypatch):
    """Trains with a backend that runs out of memory at an event where a batch has more blocks than it has room for."""

    def run(room, ends_at=lambda event: isinstance(event, StepDone), **options):
        backend, asked = type(get_backend("bigram")), []
        whole = backend.train

        def narrow(self, job):
            def report(event):
                if isinstance(event, BatchScored):
                    job.report(event)
                if asked[-1] > room and ends_at(event):
                    raise OutOfMemoryError
                if not isinstance(event, BatchScored):
                    job.report(event)

            asked.append(job.schedule.share_size)
            whole(self, replace(job, report=report))

        with monkeypatch.context() as patch:
            patch.setattr(backend, "train", narrow)
            return train(**{**STEP, "auto_find_batch_size": True, **options}), asked

    return run


def test_the_batch_is_halved_until_it_fits_and_the_curve_stays(limited, tmp_path):
    found, asked = limited(2, output_dir=tmp_path / "found")
    whole, _ = limited(12, output_dir=tmp_path / "whole")
    assert asked == [12, 6, 3, 1]
    assert found.chosen == {"per_device_train_batch_size": "1"}
    losses = [[line.get("loss", line.get("eval_loss")) for line in run.history] for run in (found, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert [line["step"] for line in found.history] == [line["step"] for line in whole.history]


@pytest.mark.parametrize(
    ("room", "ends_at"),
    [
        (0, lambda event: isinstance(event, StepDone)),
        (2, lambda event: isinstance(event, StepDone) and event.step == 2),
        (2, lambda event: isinstance(event, BatchScored)),
    ],
    ids=["not one block fits", "later", "in an evaluation"],
)
def test_else_it_is_an_error_as_always(limited, tmp_path, room, ends_at):
    with pytest.raises(OutOfMemoryError):
        limited(room, ends_at, output_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()


def test_without_the_option_nothing_is_tried_again(limited, tmp_path):
    with pytest.raises(OutOfMemoryError):
        limited(2, auto_find_batch_size=False, output_dir=tmp_path / "run")


def test_what_an_epoch_has_may_not_depend_on_the_batch(train, tmp_path):
    with pytest.raises(OptionError, match="auto_find_batch_size and dataloader_drop_last cannot be combined"):
        train(auto_find_batch_size=True, dataloader_drop_last=True, output_dir=tmp_path / "run")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OutOfMemoryError("CUDA"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("shapes differ"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_frameworks_raise_without_memory_is_known(error, expected):
    outer = KeyError("what it was raised for")
    outer.__cause__ = error
    assert [is_out_of_memory(each) for each in (error, outer)] == [expected, expected]
