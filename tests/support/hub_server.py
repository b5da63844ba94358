"""A Hub for tests, on the loopback: what huggingface_hub speaks to upload and download, and faults on demand.

Everything is kept in memory, and every request is remembered.
"""

import re
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from typing import Any

from support.hub_api import TOKEN, Handler
from support.hub_repositories import Repo
from support.waiting import wait_until

__all__ = ["TOKEN", "Fault", "HubServer", "Repo", "gone", "held", "reset", "stall"]


@dataclass
class Fault:
    """What goes wrong with requests that match: a status, or something done to the connection; `times` times."""

    match: str
    """A regular expression for `METHOD /path`."""
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    act: Callable[["Handler"], None] | None = None
    times: float = float("inf")


class HubServer:
    """The server, and what it knows: `repos`, `requests`, and the `faults` that are on."""

    def __init__(self) -> None:
        self.port = 0
        self._http: Listener | None = None
        self.forget()
        self.open()

    def forget(self) -> None:
        """Know nothing, as a new one."""
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.user: dict[str, Any] = {
            "type": "user",
            "name": "jane",
            "orgs": [{"name": "acme", "roleInOrg": "write"}, {"name": "club", "roleInOrg": "read"}],
            "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}},
        }
        self.cards: dict[str, dict[str, Any]] = {}
        """Metadata that a repository's card has on the Hub."""

    def open(self) -> None:
        """Listen, on the port of before; unless it does so already."""
        if not self._http:
            self._http = Listener(self)
            self.port = self._http.server_port

    def close(self) -> None:
        """Be gone: connections are torn down, and new ones refused."""
        if self._http:
            self._http.close()
        self._http = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def files(self, repo_id: str, branch: str = "main", kind: str = "models") -> dict[str, bytes]:
        """The files of a branch, without the one that every repository begins with."""
        repo = self.repos[kind, repo_id]
        found = repo.commits[repo.branches[branch]]
        return {path: content for path, content in found.items() if path != ".gitattributes"}

    def wait_for(self, match: str, times: int = 1) -> None:
        """Return when there were so many requests of a kind."""
        wait_until(lambda: self.count(match) >= times, why=lambda: f"no {match} among {self.requests}")

    def count(self, match: str) -> int:
        """How many requests there were of a kind."""
        return sum(bool(re.search(match, request)) for request in self.requests)


class Listener(ThreadingHTTPServer):
    """Answers each connection in a thread of its own, and knows them all."""

    daemon_threads = True

    def __init__(self, hub: HubServer) -> None:
        super().__init__(("127.0.0.1", hub.port), Handler)
        self.hub = hub
        self.connections: set[socket.socket] = set()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Answer nobody any more, on a connection that is open already neither."""
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def reset(handler: Handler) -> None:
    """Take the beginning of the body, and tear the connection down."""
    handler.rfile.read(min(1000, int(handler.headers.get("Content-Length") or 0)))
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def stall(handler: Handler) -> None:
    """Take the body, and say nothing until the client has gone."""
    handler.body()
    handler.connection.settimeout(60)
    handler.rfile.read(1)
    handler.close_connection = True


def gone(handler: Handler) -> None:
    """Be gone, as the whole server, before this request is answered."""
    handler.server.hub.close()
    handler.close_connection = True


def held(until: threading.Event) -> Callable[[Handler], None]:
    """Go on when told to."""

    def wait(handler: Handler) -> None:
        until.wait(60)

    return wait
