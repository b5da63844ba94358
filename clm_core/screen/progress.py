"""Progress: bars on a terminal, lines elsewhere, silence from Python unless requested."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

from clm_core.counts import with_noun

PLAIN_INTERVAL = 10.0
"""Seconds between the lines of a bar if there is no terminal."""

WARMING = 2
"""Reports that do not measure the pace: those before resuming, and the first step, in which a framework traces."""


class Bar(Protocol):
    """A stage of the work, and how far it is."""

    def advance(self, count: int = 1) -> None:
        """Count this many more as done."""

    def note(self, text: str) -> None:
        """A note to show beside the bar, such as the loss."""


class Progress:
    """Shows nothing: the default for calls from Python, and the interface of the others."""

    def say(self, line: str) -> None:
        """Show a line that stays."""

    @contextmanager
    def bar(self, description: str, total: int | None, unit: str) -> Iterator[Bar]:
        """A bar for the duration of the block; `total` is None if unknown."""
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

        with tqdm(
            total=total, desc=description, file=self.stream, leave=False, dynamic_ncols=True, bar_format="{desc}"
        ) as bar:
            yield _TqdmBar(bar, unit)


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


class _Pace:
    """How far a bar is and how fast, from its second report on.

    In a resumed run, the first may include earlier steps; the next may include a framework's tracing.
    """

    def __init__(self, total: int | None, unit: str) -> None:
        self.total, self.unit = total, unit
        self.done = self.reports = self.done_at_mark = 0
        self.marked = 0.0

    def advance(self, count: int) -> None:
        self.done += count
        self.reports += 1
        if self.reports <= WARMING:
            self.mark()

    def mark(self) -> None:
        """Measure from now on."""
        self.done_at_mark, self.marked = self.done, time.monotonic()

    @property
    def a_second(self) -> float | None:
        """Units per second; None if it is too early to tell."""
        done, seconds = self.done - self.done_at_mark, time.monotonic() - self.marked
        return done / seconds if done and seconds > 0 else None

    @property
    def left(self) -> float | None:
        """Seconds until all is done, at this pace."""
        pace = self.a_second
        return (self.total - self.done) / pace if self.total and pace and self.done < self.total else None

    def counted(self) -> str:
        """How many of how many, with the unit in the singular or plural."""
        return f"{self.done:,} of {with_noun(self.total, self.unit)}" if self.total else with_noun(self.done, self.unit)


class _TqdmBar:
    def __init__(self, bar: Any, unit: str) -> None:
        self.bar, self.pace, self.text = bar, _Pace(bar.total, unit), ""
        self._show()
        self.bar.refresh()

    def advance(self, count: int = 1) -> None:
        self.pace.advance(count)
        self._show()
        self.bar.update(count)
        if self.pace.reports <= WARMING:
            self.bar.refresh()  # tqdm shows nothing for a tenth of a second, and the next step may take minutes.

    def note(self, text: str) -> None:
        self.text = text
        self._show()
        self.bar.refresh()

    def _show(self) -> None:
        """The line, without the pace if the note has a rate already."""
        pace = self.pace.a_second
        said = self.text or (f"{_rate(pace)} {self.pace.unit}s/s" if pace else "")
        note = f", {said}" if said else ""
        if self.bar.total:
            left = self.pace.left
            ahead = f"<{self.bar.format_interval(left)}" if left is not None else ""
            of = f"{self.pace.done:,}/{self.bar.total:,}"
            line = f"{{desc}}: {{percentage:3.0f}}%|{{bar}}| {of} [{{elapsed}}{ahead}{note}]"
        else:
            line = f"{{desc}}: {self.pace.counted()} [{{elapsed}}{note}]"
        self.bar.bar_format = line


class _PlainBar:
    def __init__(self, progress: PlainProgress, description: str, total: int | None, unit: str) -> None:
        self.progress, self.description, self.pace = progress, description, _Pace(total, unit)
        self.text = ""
        self.started = self.shown = time.monotonic()

    def advance(self, count: int = 1) -> None:
        self.pace.advance(count)
        if time.monotonic() - self.shown > PLAIN_INTERVAL:
            self._show()

    def note(self, text: str) -> None:
        self.text = text

    def close(self) -> None:
        if time.monotonic() - self.started > PLAIN_INTERVAL:
            self._show()

    def _show(self) -> None:
        now, left = time.monotonic(), self.pace.left
        ahead = f", {_duration(left)} left" if left is not None else ""
        note = f", {self.text}" if self.text else ""
        self.progress.say(f"{self.description}: {self.pace.counted()}, {_duration(now - self.started)}{ahead}{note}")
        self.shown = now
        if self.pace.reports > WARMING:
            self.pace.mark()  # The time left is at the pace since the last line: earlier steps may have been slower.


def _rate(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
