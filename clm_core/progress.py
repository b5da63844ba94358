"""Progress for the person who waits: bars on a terminal, lines elsewhere, nothing from Python unless asked for."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

PLAIN_INTERVAL = 10.0
"""Seconds between the lines of a bar where there is no terminal."""


class Bar(Protocol):
    """A step of the work, and how far it got."""

    def advance(self, count: int = 1) -> None:
        """So many more are done."""

    def note(self, text: str) -> None:
        """What is worth showing beside the bar, such as the loss."""


class Progress:
    """Shows nothing: what calls from Python get by default, and the interface of the others."""

    def say(self, line: str) -> None:
        """A line that stays."""

    @contextmanager
    def bar(self, description: str, total: int | None, unit: str) -> Iterator[Bar]:
        """A bar for as long as the block takes; `total` is None where it is not known."""
        yield _NoBar()


class TerminalProgress(Progress):
    """Shows bars with tqdm, for a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def say(self, line: str) -> None:
        from tqdm import tqdm

        tqdm.write(line, file=self.stream)

    @contextmanager
    def bar(self, description: str, total: int | None, unit: str) -> Iterator[Bar]:
        from tqdm import tqdm

        with tqdm(total=total, desc=description, unit=unit, file=self.stream, leave=False, dynamic_ncols=True) as bar:
            yield _TqdmBar(bar)


class PlainProgress(Progress):
    """Shows lines, for a log file or a pipe."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def say(self, line: str) -> None:
        print(line, file=self.stream, flush=True)

    @contextmanager
    def bar(self, description: str, total: int | None, unit: str) -> Iterator[Bar]:
        bar = _PlainBar(self, description, total, unit)
        yield bar
        bar.close()


def terminal_progress(stream: TextIO | None = None) -> Progress:
    """The progress that fits a stream, standard error by default."""
    stream = stream or sys.stderr
    return TerminalProgress(stream) if stream.isatty() else PlainProgress(stream)


class _NoBar:
    def advance(self, count: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class _TqdmBar:
    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def advance(self, count: int = 1) -> None:
        self.bar.update(count)

    def note(self, text: str) -> None:
        self.bar.set_postfix_str(text)


class _PlainBar:
    def __init__(self, progress: PlainProgress, description: str, total: int | None, unit: str) -> None:
        self.progress, self.description, self.total, self.unit = progress, description, total, unit
        self.done = self.done_when_shown = 0
        self.text = ""
        self.started = self.shown = time.monotonic()

    def advance(self, count: int = 1) -> None:
        self.done += count
        if time.monotonic() - self.shown > PLAIN_INTERVAL:
            self._show()

    def note(self, text: str) -> None:
        self.text = text

    def close(self) -> None:
        if time.monotonic() - self.started > PLAIN_INTERVAL:
            self._show()

    def _show(self) -> None:
        now = time.monotonic()
        of = f" of {self.total:,}" if self.total else ""
        note = f", {self.text}" if self.text else ""
        elapsed = f"{_duration(now - self.started)}{self._left(now)}"
        self.progress.say(f"{self.description}: {self.done:,}{of} {self.unit}s, {elapsed}{note}")
        self.shown, self.done_when_shown = now, self.done

    def _left(self, now: float) -> str:
        """The time left at the pace since the last line; what came before may have been slower or faster."""
        done = self.done - self.done_when_shown
        if not self.total or not done or self.done == self.total:
            return ""
        return f", {_duration((now - self.shown) / done * (self.total - self.done))} left"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
