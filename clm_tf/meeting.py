"""Has the workers of TF_CONFIG wait for each other in Python, which hears signals; TensorFlow's own waiting hears none.

The first one listens at its address, where TensorFlow will, and tells the others once all of them have said their
numbers.
"""

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress

from clm_core.errors import Interrupted, OptionError
from clm_core.stopping import Stop

PAUSE = 0.2
"""Seconds between two looks at what has come."""

PARTING = 5.0
"""Seconds that the first worker waits for the others to hang up, so that its port is free at once."""

ALL = b"all"


def meet(addresses: Sequence[str], number: int, stop: Stop) -> None:
    """Return once all workers have called this; `addresses` are those of all, of which `number` is this one's.

    Raises:
        Interrupted: a signal asked for the end of what has not begun.
        OptionError: the first address is not one that this worker can listen at.
    """
    if number == 0:
        _host(_port(addresses[0]), len(addresses) - 1, stop)
    else:
        while not _is_told(addresses[0], number, stop):
            _pause(stop)


def _host(port: int, others: int, stop: Stop) -> None:
    """Wait for the others, and tell them when all are here."""
    with ExitStack() as opened:
        try:
            server = opened.enter_context(closing(socket.create_server(("", port))))
        except OSError as error:
            raise OptionError(f"TF_CONFIG: this worker cannot listen at port {port}: {error.strerror}") from error
        server.settimeout(PAUSE)
        here: dict[bytes, socket.socket] = {}
        while len(here) < others:
            for connection, name in _arrivals(server):
                opened.callback(connection.close)
                here[name] = connection
            _pause(stop, 0.0)
        for connection in here.values():
            connection.sendall(ALL)
        for connection in here.values():
            with suppress(OSError):
                connection.settimeout(PARTING)
                connection.recv(1)


def _arrivals(server: socket.socket) -> Iterator[tuple[socket.socket, bytes]]:
    """Who has come within a moment, with what it says of itself; what says nothing is not a worker."""
    with suppress(OSError):
        connection, _ = server.accept()
        connection.settimeout(PAUSE)
        if (name := connection.recv(16)).startswith(b"clm "):
            yield connection, name
        else:
            connection.close()


def _is_told(address: str, number: int, stop: Stop) -> bool:
    """Whether the first worker says that all are here; it may not be there yet, or be gone again."""
    host = address.rpartition(":")[0].strip("[]")
    with suppress(OSError), closing(socket.create_connection((host, _port(address)), timeout=1.0)) as connection:
        connection.sendall(b"clm %d" % number)
        connection.settimeout(PAUSE)
        while True:
            with suppress(TimeoutError):
                return connection.recv(len(ALL)) == ALL
            _pause(stop, 0.0)
    return False


def _pause(stop: Stop, seconds: float = PAUSE) -> None:
    time.sleep(seconds)
    if stop.signum is not None:
        raise Interrupted(stop.signum)


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
