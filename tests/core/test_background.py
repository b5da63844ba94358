"""Work beside a training: one item at a time, the newest of those that wait, and every one let go of."""

import threading
from contextlib import suppress

import pytest
from support.waiting import wait_until

from clm_core.hub.background import Background


@pytest.fixture
def gate():
    return threading.Event()


@pytest.fixture
def background(gate):
    """Its work waits at a gate; `begun`, `done` and `discarded` say what became of each item."""

    def work(item, stopped):
        found.begun.append(item)
        assert gate.wait(60)
        found.done.append(item)

    found = Background(work, lambda item: found.discarded.append(item))
    found.begun, found.done, found.discarded = [], [], []
    yield found
    gate.set()
    found.stop()


def test_of_those_that_wait_only_the_newest_is_done(background, gate):
    for item in range(1, 5):
        background.submit(item)
        wait_until(lambda: background.begun)
    gate.set()
    wait_until(lambda: len(background.discarded) == 4)
    assert background.done == [1, 4]
    assert background.discarded == [2, 3, 1, 4]


def test_stopping_drops_what_waits_and_waits_for_what_is_under_way(background, gate):
    background.submit(1)
    wait_until(lambda: background.begun)
    background.submit(2)
    threading.Timer(0.05, gate.set).start()
    background.stop()
    assert (background.done, sorted(background.discarded)) == ([1], [1, 2])


def test_an_error_is_not_held_up_by_work_that_hangs(background):
    with pytest.raises(KeyboardInterrupt), background.stopped_at_end(lambda: False):
        raise KeyboardInterrupt
    assert background.begun == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, None])
def test_what_hangs_at_an_error_or_in_a_hurry_is_given_up_and_discarded(background, monkeypatch, error):
    monkeypatch.setattr("clm_core.hub.background.BRIEFLY", 0.01)
    background.submit(1)
    wait_until(lambda: background.begun)
    answers = iter([False, True])
    with suppress(KeyboardInterrupt), background.stopped_at_end(lambda: next(answers)):
        if error:
            raise error
    assert (background.done, background.discarded) == ([], [1])
    assert next(answers, None) is (False if error else None)


def test_work_goes_on_after_a_pause(background, gate):
    gate.set()
    for item in (1, 2):
        background.submit(item)
        wait_until(lambda item=item: item in background.discarded)
    assert background.done == [1, 2]
