"""Has the workers of TF_CONFIG wait for each other in Python, which hears signals; TensorFlow's own waiting hears none.

Each one listens at its address, where TensorFlow will, from when it begins: what is said there is kept for it, while it
is busy, by the system. The others tell the first one that they are here, and it tells them once all are. One that ends
before tells the first one, which ends as well, and tells the rest. What is said is a line, answered at once by whoever
waits:

    clm 1            process 1 is here, and stays connected until it is told `all!`
    clm 1 ended 1    process 1 ends, because process 1 has ended
"""

import math
import re
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress

from clm_core.errors import Interrupted, LostProcessError, OptionError
from clm_core.stopping import Stop

PAUSE = 0.2
"""Seconds between two looks at what has come."""

PARTING = 5.0
"""Seconds that the first worker waits for the others to hang up, so that its port is free at once."""

RETURNING = 5.0
"""Seconds after which a worker that was here, and whose connection has ended without a word, counts as ended."""

LINE = re.compile(rb"clm (\d{1,6})(?: ended (\d{1,6}))?\n")
"""All that a worker says; what says something else is none."""

HERE, ALL = b"here", b"all!"
"""What a worker that waits answers, and what the first one says once all are here."""


class Meeting:
    """The meeting of the workers at `addresses`, of which `number` is this one's."""

    def __init__(self, addresses: Sequence[str], number: int) -> None:
        self._addresses, self._number = addresses, number
        self._cause = number
        """Which one has ended first, if this one ends."""
        self._server: socket.socket | None = None
        self._is_over = False

    def open(self) -> socket.socket:
        """Listen at the address of this worker; what others say is kept until it waits for them.

        Raises:
            OptionError: it cannot listen there.
        """
        if self._server is None:
            port = _place(self._addresses[self._number])[1]
            try:
                self._server = socket.create_server(("", port))
            except OSError as error:
                raise OptionError(f"TF_CONFIG: this worker cannot listen at port {port}: {error.strerror}") from error
            self._server.settimeout(PAUSE)
        return self._server

    def wait(self, stop: Stop) -> None:
        """Return once all workers have called this.

        Raises:
            Interrupted: a signal asked for the end of what has not begun.
            LostProcessError: another worker has ended before all had come.
            OptionError: this one cannot listen at its address.
        """
        if self._is_over:
            return
        try:
            if self._number == 0:
                self._host(self.open(), stop)
            else:
                self._follow(self.open(), stop)
        finally:
            self._close()
        self._is_over = True

    def tell(self, seconds: float) -> None:
        """Tell those that wait, or begin within `seconds`, that this worker ends, unless they have met or know.

        The first one tells all but the one that has told it; any other one tells the first.
        """
        self._close()
        numbers = {*range(1, len(self._addresses))} - {self._cause} if self._number == 0 else {0}
        line, end = b"clm %d ended %d\n" % (self._number, self._cause), time.monotonic() + seconds
        while numbers and not self._is_over:
            numbers = {number for number in numbers if not _is_told(self._addresses[number], line)}
            if time.monotonic() >= end:
                return
            time.sleep(PAUSE if numbers else 0.0)

    def _host(self, server: socket.socket, stop: Stop) -> None:
        """Wait for the others, and tell them when all are here."""
        with ExitStack() as opened:
            here = self._all(server, stop, opened)
            for number, connection in here.items():
                try:
                    connection.sendall(ALL)
                except OSError as error:
                    raise self._lost(number) from error
            for connection in here.values():
                with suppress(OSError):
                    connection.settimeout(PARTING)
                    connection.recv(1)

    def _all(self, server: socket.socket, stop: Stop, opened: ExitStack) -> dict[int, socket.socket]:
        """The connections of all others, once they are here at the same time."""
        here: dict[int, socket.socket] = {}
        gone: dict[int, float] = {}
        while True:
            _pause(stop, 0.0)
            if found := self._guest(server):
                connection, number, cause = found
                opened.callback(connection.close)
                here.pop(number, None), gone.pop(number, None)  # Its last word counts: it may have been started again.
                if cause is None:
                    here[number] = connection
                else:
                    gone[number] = time.monotonic()
                continue
            for number in [number for number, connection in here.items() if _has_ended(connection)]:
                del here[number]
                gone[number] = time.monotonic() + RETURNING
            if lost := [number for number, when in gone.items() if when <= time.monotonic()]:
                raise self._lost(lost[0])
            if len(here) == len(self._addresses) - 1:
                return here

    def _follow(self, server: socket.socket, stop: Stop) -> None:
        """Wait until the first worker says that all are here; it may not be there yet, or be gone again."""
        is_known, deadline = False, math.inf
        while time.monotonic() < deadline:
            with suppress(OSError), closing(_connection(self._addresses[0])) as connection:
                connection.sendall(b"clm %d\n" % self._number)
                while (word := self._word(connection, server, stop)) in (HERE, ALL):
                    if word == ALL:
                        return
                    is_known = True
            if is_known:
                is_known, deadline = False, time.monotonic() + RETURNING
            self._hear_first(server)
            _pause(stop)
        raise self._lost(0)

    def _word(self, connection: socket.socket, server: socket.socket, stop: Stop) -> bytes:
        """What the first worker says next; nothing once it has ended."""
        while True:
            with suppress(TimeoutError):
                return connection.recv(len(ALL))
            self._hear_first(server)
            _pause(stop, 0.0)

    def _hear_first(self, server: socket.socket) -> None:
        """End if the first worker has said that it does; this one need not tell the others then."""
        if found := self._guest(server):
            connection, number, cause = found
            connection.close()
            if number == 0 and cause is not None:
                raise self._lost(cause)

    def _guest(self, server: socket.socket) -> tuple[socket.socket, int, int | None] | None:
        """Who has come within a moment, and which worker has ended, if that is why; what is no worker is sent away."""
        with suppress(OSError):
            connection, _ = server.accept()
            with ExitStack() as opened:
                opened.callback(connection.close)
                connection.settimeout(PAUSE)
                said = LINE.fullmatch(connection.recv(32))
                numbers = [int(found) for found in said.groups() if found] if said else []
                if numbers and max(numbers) < len(self._addresses):
                    connection.sendall(HERE)
                    opened.pop_all()
                    return connection, numbers[0], numbers[1] if len(numbers) > 1 else None
        return None

    def _lost(self, number: int) -> LostProcessError:
        self._cause, self._is_over = number, self._number != 0
        return LostProcessError(
            f"process {number} of TF_CONFIG ({self._addresses[number]}) ended before the work began: "
            "its own message says why"
        )

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


def _is_told(address: str, line: bytes) -> bool:
    """Whether a worker has heard a line, or will once it waits; what has nobody behind it, as a proxy may, hangs up."""
    with suppress(OSError), closing(_connection(address)) as connection:
        connection.sendall(line)
        try:
            return connection.recv(len(HERE)) == HERE
        except TimeoutError:  # It is busy.
            return True
    return False


def _connection(address: str) -> socket.socket:
    connection = socket.create_connection(_place(address), timeout=1.0)
    connection.settimeout(PAUSE)
    return connection


def _has_ended(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(PAUSE)


def _pause(stop: Stop, seconds: float = PAUSE) -> None:
    time.sleep(seconds)
    if stop.signum is not None:
        raise Interrupted(stop.signum)


def _place(address: str) -> tuple[str, int]:
    """The host and the port of an address.

    Raises:
        OptionError: it has none.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and int(port) < 1 << 16):
        raise OptionError(f"TF_CONFIG names the address {address!r}: it takes HOST:PORT")
    return host.strip("[]"), int(port)
