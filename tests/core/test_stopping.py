"""What asks a training to stop, in one process and in several."""

import signal

import pytest

from clm_core.stopping import Stop


def test_a_process_alone_stops_as_soon_as_it_is_asked(tmp_path):
    stop = Stop(tmp_path / "stop")
    assert not stop.requested
    (tmp_path / "stop").touch()
    assert stop.requested


@pytest.mark.parametrize("asked", [signal.SIGTERM, None], ids=["signal", "file"])
def test_several_processes_stop_once_all_of_them_know(asked, tmp_path):
    one, other = Stop(tmp_path / "one", together=True), Stop(tmp_path / "other", together=True)
    one.ask(asked) if asked else (tmp_path / "one").touch()
    assert not one.requested
    for stop in (one, other):
        stop.agree(max(one.wish, other.wish))
    assert (one.requested, other.requested) == (True, True)
    assert (one.signum, other.signum) == (asked, asked)
