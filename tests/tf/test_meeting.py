"""Workers wait for each other until all are there, or a signal ends the waiting."""

import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from clm_core.errors import Interrupted, OptionError
from clm_core.stopping import Stop
from clm_tf.meeting import meet


@pytest.fixture
def port():
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def addresses(port, count):
    return [f"127.0.0.1:{port}", *(f"nowhere:{number}" for number in range(1, count))]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_all_go_on_once_all_are_there(port, order):
    last = threading.Event()
    with ThreadPoolExecutor(3) as threads:
        early = [threads.submit(meet, addresses(port, 3), number, Stop()) for number in order[:2]]
        time.sleep(0.5)
        assert not any(each.done() for each in early)
        threads.submit(meet, addresses(port, 3), order[2], Stop()).add_done_callback(lambda done: last.set())
        assert [each.result(timeout=20) for each in early] == [None, None]
        assert last.wait(20)


def test_who_is_no_worker_does_not_count(port):
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(meet, addresses(port, 2), 0, Stop())
        for _ in range(50):
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1) as stranger:
                    stranger.sendall(b"GET / HTTP/1.1")
                break
            except OSError:
                time.sleep(0.1)
        time.sleep(0.5)
        assert not first.done()
        meet(addresses(port, 2), 1, Stop())
        assert first.result(timeout=20) is None


@pytest.mark.parametrize("number", [0, 1])
def test_a_signal_ends_the_waiting(port, number):
    stop = Stop()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(meet, addresses(port, 2), number, stop)
        stop.ask(signal.SIGTERM)
        with pytest.raises(Interrupted):
            waiting.result(timeout=20)


def test_a_port_that_is_taken_is_named(port):
    with socket.create_server(("", port)), pytest.raises(OptionError, match=f"cannot listen at port {port}"):
        meet(addresses(port, 2), 0, Stop())
