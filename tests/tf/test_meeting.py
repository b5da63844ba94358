"""Workers wait for each other until all are there, one of them has ended, or a signal ends the waiting."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from clm_core.errors import Interrupted, LostProcessError, OptionError
from clm_core.stopping import Stop
from clm_tf import meeting
from clm_tf.meeting import Meeting


@pytest.fixture
def addresses():
    """Of three workers, at ports that nothing listens at."""
    servers = [socket.create_server(("", 0)) for _ in range(3)]
    found = [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]
    for server in servers:
        server.close()
    return found


@pytest.fixture
def stop():
    return Stop()


@pytest.fixture
def threads(stop):
    with ThreadPoolExecutor(3) as pool:
        yield pool
        stop.ask(signal.SIGTERM)  # Those that wait in spite of what was expected.


def meet(addresses, number, stop):
    Meeting(addresses, number).wait(stop)


def connected(address):
    """A connection to a worker that is about to listen."""
    for _ in range(50):
        try:
            return socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=5)
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"nothing listens at {address}")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_all_go_on_once_all_are_there(order, addresses, threads, stop):
    last = threading.Event()
    early = [threads.submit(meet, addresses, number, stop) for number in order[:2]]
    time.sleep(0.5)
    assert not any(each.done() for each in early)
    threads.submit(meet, addresses, order[2], stop).add_done_callback(lambda done: last.set())
    assert [each.result(timeout=20) for each in early] == [None, None]
    assert last.wait(20)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1", b"clm 1", b"clm 7 ended 7\n", b"clm 1 ended 1\n" * 9999, b""])
@pytest.mark.parametrize("number", [0, 1])
def test_who_is_no_worker_does_not_count(number, said, addresses, threads, stop):
    waiting = threads.submit(meet, addresses[:2], number, stop)
    with connected(addresses[number]) as stranger:
        stranger.sendall(said)
        time.sleep(0.7)
        assert not waiting.done()
        meet(addresses[:2], 1 - number, stop)
    assert waiting.result(timeout=20) is None


@pytest.mark.parametrize("number", [0, 1])
def test_a_signal_ends_the_waiting(number, addresses, threads, stop):
    waiting = threads.submit(meet, addresses, number, stop)
    stop.ask(signal.SIGTERM)
    with pytest.raises(Interrupted):
        waiting.result(timeout=20)


@pytest.mark.parametrize("number", [0, 1])
def test_a_port_that_is_taken_is_named(number, addresses, stop):
    port = int(addresses[number].rpartition(":")[2])
    with socket.create_server(("", port)), pytest.raises(OptionError, match=f"cannot listen at port {port}"):
        meet(addresses, number, stop)


@pytest.mark.parametrize("address", ["a", "a:", ":1", "a:99999"])
def test_an_address_without_a_host_or_a_port_is_refused(address, stop):
    with pytest.raises(OptionError, match="it takes HOST:PORT"):
        Meeting(["127.0.0.1:1", address], 1).open()


@pytest.mark.parametrize("when", ["waiting", "busy", "not begun"])
@pytest.mark.parametrize("failed", [0, 1])
def test_one_that_fails_ends_the_other_that_is(failed, when, addresses, threads, stop):
    other = Meeting(addresses[:2], 1 - failed)
    if when == "busy":
        other.open()
    waiting = threads.submit(other.wait, stop) if when == "waiting" else None
    time.sleep(0.5)
    telling = threads.submit(Meeting(addresses[:2], failed).tell, 20)
    time.sleep(0.5)
    with pytest.raises(LostProcessError, match=rf"^process {failed} of TF_CONFIG \({addresses[failed]}\) ended before"):
        (waiting or threads.submit(other.wait, stop)).result(timeout=20)
    telling.result(timeout=5)


def test_the_first_one_tells_the_others_which_one_has_failed(addresses, threads, stop):
    first = Meeting(addresses, 0)
    waiting = [threads.submit(first.wait, stop), threads.submit(meet, addresses, 1, stop)]
    Meeting(addresses, 2).tell(20)
    with pytest.raises(LostProcessError, match=r"^process 2 of"):
        waiting[0].result(timeout=20)
    first.tell(20)
    with pytest.raises(LostProcessError, match=r"^process 2 of"):
        waiting[1].result(timeout=20)


def test_one_that_failed_and_was_started_again_is_here(addresses, threads, stop):
    first = Meeting(addresses[:2], 0)
    first.open()
    Meeting(addresses[:2], 1).tell(0)
    again = threads.submit(meet, addresses[:2], 1, stop)
    time.sleep(0.5)
    first.wait(stop)
    assert again.result(timeout=20) is None


def test_one_that_was_killed_before_the_first_waits_has_ended(addresses, monkeypatch, stop):
    monkeypatch.setattr(meeting, "RETURNING", 0.5)
    first = Meeting(addresses[:2], 0)
    first.open()
    with connected(addresses[0]) as killed:
        killed.sendall(b"clm 1\n")
    with pytest.raises(LostProcessError, match=r"^process 1 of"):
        first.wait(stop)


@pytest.mark.parametrize("returns", [False, True])
def test_one_that_is_killed_while_it_waits_has_ended_unless_it_returns(returns, addresses, threads, monkeypatch, stop):
    monkeypatch.setattr(meeting, "RETURNING", 3.0)
    waiting = threads.submit(meet, addresses, 0, stop)
    with connected(addresses[0]) as killed:
        killed.sendall(b"clm 1\n")
        assert killed.recv(4) == meeting.HERE
    time.sleep(0.5)
    if returns:
        others = [threads.submit(meet, addresses, number, stop) for number in (1, 2)]
        assert [each.result(timeout=20) for each in (waiting, *others)] == [None] * 3
    else:
        with pytest.raises(LostProcessError, match=r"^process 1 of"):
            waiting.result(timeout=20)


def test_the_first_one_that_is_killed_while_it_waits_has_ended(addresses, threads, monkeypatch, stop):
    monkeypatch.setattr(meeting, "RETURNING", 1.0)
    with socket.create_server(("", int(addresses[0].rpartition(":")[2]))) as server:
        waiting = threads.submit(meet, addresses[:2], 1, stop)
        connection, _ = server.accept()
        connection.sendall(meeting.HERE)
        time.sleep(0.5)
        connection.close()
    with pytest.raises(LostProcessError, match=r"^process 0 of"):
        waiting.result(timeout=20)


def test_nobody_is_told_for_longer_than_it_may_take(addresses, stop):
    began = time.monotonic()
    Meeting(addresses, 0).tell(0)
    assert time.monotonic() - began < 5


def test_those_who_have_met_are_told_nothing(addresses, threads, stop):
    both = [Meeting(addresses[:2], number) for number in range(2)]
    list(threads.map(lambda each: each.wait(stop), both))
    began = time.monotonic()
    both[1].tell(20)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_command_that_fails_before_it_begins_ends_the_one_that_waits(command, addresses, threads, tmp_path, stop):
    waiting = threads.submit(meet, addresses[:2], 0, stop)
    config = {"cluster": {"worker": addresses[:2]}, "task": {"type": "worker", "index": 1}}
    files = ["--train-file", "nosuch.txt", "--output-dir", "run", "--model-name-or-path", "nowhere"]
    started = [sys.executable, "-m", "clm_core", "--backend", "tf", command, *files]
    if command == "evaluate":
        del started[-4:-2]
    environment = {**os.environ, "TF_CONFIG": json.dumps(config), "TMPDIR": str(tmp_path)}
    failed = subprocess.run(started, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert failed.returncode == 2
    assert "process 1: clm: error: " in failed.stderr
    assert failed.stderr.count("\n") == 1
    with pytest.raises(LostProcessError, match=r"^process 1 of"):
        waiting.result(timeout=20)
