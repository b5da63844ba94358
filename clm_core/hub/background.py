"""A background thread for uploads during training: only the newest waiting item is kept."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")

OFTEN, BRIEFLY = 0.1, 5.0
"""Seconds: how long a wait may take no notice of a hurry, and how long it takes in one."""


class Background(Generic[T]):
    """Works on one item at a time in a thread; of the items waiting, all but the newest are dropped.

    `work` gets an event that tells it to stop; `discard` is called for every item that was finished, dropped, or given
    up.
    """

    def __init__(self, work: Callable[[T, threading.Event], None], discard: Callable[[T], None]) -> None:
        self._work, self._discard = work, discard
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._waiting: list[T] = []
        self._current: list[T] = []
        self._stopped = threading.Event()

    def submit(self, item: T) -> None:
        """Queue an item to follow the current one, replacing any that waits."""
        with self._lock:
            dropped, self._waiting = self._waiting, [item]
            if self._thread is None:
                # A daemon, so that a program that is told to end does not wait for it.
                self._thread = threading.Thread(target=self._run, name="clm-background", daemon=True)
                self._thread.start()
        for old in dropped:
            self._discard(old)

    @contextmanager
    def stopped_at_end(self, is_hurried: Callable[[], bool]) -> Iterator[None]:
        """Stop at the end of the block; if an error ends it, or there `is_hurried`, wait only briefly."""
        try:
            yield
        except BaseException:
            self.stop(lambda: True)
            raise
        self.stop(is_hurried)

    def stop(self, is_hurried: Callable[[], bool] = lambda: False) -> None:
        """Drop what waits, and return when the current item is finished; if there `is_hurried`, give it up soon."""
        self._stopped.set()
        with self._lock:
            dropped, self._waiting = self._waiting, []
            thread = self._thread
        for old in dropped:
            self._discard(old)
        if thread:
            while thread.is_alive() and not is_hurried():
                thread.join(OFTEN)
            thread.join(BRIEFLY)
            for given_up in self._current:  # The thread may end with the process, and not come to it.
                self._discard(given_up)

    def _run(self) -> None:
        while item := self._next():
            try:
                self._work(item[0], self._stopped)
            finally:
                self._current = []
                self._discard(item[0])

    def _next(self) -> list[T]:
        with self._lock:
            self._current, self._waiting = self._waiting, []
            if not self._current:
                self._thread = None
            return self._current
