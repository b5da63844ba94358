"""Work that is done beside a training and never in its way: the newest that waits, after the one under way."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """Does one item after the other in a thread; of those that wait, all but the newest are dropped.

    `work` is given an event that says to come to an end; `discard` is called for every item that was done or dropped.
    """

    def __init__(self, work: Callable[[T, threading.Event], None], discard: Callable[[T], None]) -> None:
        self._work, self._discard = work, discard
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._waiting: list[T] = []
        self._stopped = threading.Event()

    def submit(self, item: T) -> None:
        """Have an item done as soon as the one under way is, in place of any that waits."""
        with self._lock:
            dropped, self._waiting = self._waiting, [item]
            if self._thread is None:
                # A daemon, so that a program that is told to end does not wait for it.
                self._thread = threading.Thread(target=self._run, name="clm-background", daemon=True)
                self._thread.start()
        for old in dropped:
            self._discard(old)

    @contextmanager
    def stopped_at_end(self) -> Iterator[None]:
        """Come to an end with the block; if an error ends it, with not much patience for what is under way."""
        try:
            yield
        except BaseException:
            self.stop(timeout=5.0)
            raise
        self.stop()

    def stop(self, timeout: float | None = None) -> None:
        """Drop what waits, and return when what is under way has come to its end, or after `timeout` seconds."""
        self._stopped.set()
        with self._lock:
            dropped, self._waiting = self._waiting, []
            thread = self._thread
        for old in dropped:
            self._discard(old)
        if thread:
            thread.join(timeout)

    def _run(self) -> None:
        while item := self._next():
            try:
                self._work(item[0], self._stopped)
            finally:
                self._discard(item[0])

    def _next(self) -> list[T]:
        with self._lock:
            item, self._waiting = self._waiting, []
            if not item:
                self._thread = None
            return item
