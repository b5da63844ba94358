"""Standard streams of any kind: any encoding, closed, full, or read by nobody."""

import codecs
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from clm_core.errors import OptionError, OutputError

ESCAPED = "clm.escaped"
"""The name of a codec's error handler: what an encoding lacks is written as JSON escapes it, which stays JSON."""


def open_closed() -> None:
    """Put the null device where a standard stream is closed, so that no file of ours gets its number, and its text."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # The lowest number that is free: this one.
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def show(text: str) -> None:
    """Print on standard output, at once.

    Raises:
        OutputError: it takes no more.
        BrokenPipeError: nobody reads it any more.
    """
    try:
        print(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        abandon(sys.stdout)
        raise OutputError(f"standard output cannot be written: {error.strerror}") from error


def complain(text: str) -> None:
    """Print on standard error, where that is possible, on a line without what a bar or Ctrl-C left there."""
    try:
        print(clearing(sys.stderr) + text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        abandon(sys.stderr)


def clearing(stream: TextIO) -> str:
    """What makes the line empty that the cursor is in, if it is a terminal's that understands it."""
    understands = os.name == "posix" and os.environ.get("TERM") not in (None, "dumb")
    return "\r\x1b[K" if understands and stream.isatty() else ""


def abandon(stream: TextIO) -> None:
    """Discard what a stream still buffers, so that the end of the process does not fail for it."""
    with suppress(OSError, ValueError, AttributeError):  # A stream of a caller need not have a descriptor.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def error_stream(descriptor: int) -> TextIO:
    """A stream to where standard error goes, or went: a disk that is full ends nothing because of its messages."""
    encoding = getattr(sys.stderr, "encoding", None)
    raw = io.BufferedWriter(_Lossy(descriptor, "w"))
    return io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace", line_buffering=True)


@contextmanager
def escaped_output() -> Iterator[None]:
    r"""Write characters that the encoding of standard output lacks as `\u65e5`, for as long as the block takes."""
    out = sys.stdout
    if not isinstance(out, io.TextIOWrapper):  # Closed, or of a caller that collects text.
        yield
        return
    before = out.errors
    out.reconfigure(errors=ESCAPED)
    try:
        yield
    finally:
        if not out.closed:
            out.reconfigure(errors=before)


def print_json(text: str) -> None:
    """Print JSON as it is where standard output is UTF-8, which JSON has to be, and in ASCII elsewhere."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    is_utf8 = codecs.lookup(encoding).name == "utf-8"
    show(text if is_utf8 else text.encode("ascii", ESCAPED).decode())


def read_input() -> str:
    """All of standard input to the last character, but for one line break at its end; surrogates for broken bytes.

    Raises:
        OptionError: standard input is closed.
    """
    if sys.stdin is None:
        raise OptionError("no prompt was given, and standard input is closed")
    text = _decode(sys.stdin.buffer.read()) if isinstance(sys.stdin, io.TextIOWrapper) else sys.stdin.read()
    return text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n")


class _Lossy(io.FileIO):
    has_hung_up = False

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            if isinstance(error, BrokenPipeError) and not self.has_hung_up:
                self.has_hung_up = True
                _hang_up(error)
            return memoryview(data).nbytes


def _hang_up(error: BrokenPipeError) -> None:
    """Answer a reader that is gone, such as `tee`, as a terminal that is closed: a training saves.

    Raises:
        BrokenPipeError: the signal would end the process at once.
    """
    number = getattr(signal, "SIGHUP", None)
    if number is None or signal.getsignal(number) in (signal.SIG_DFL, None):
        raise error
    os.kill(os.getpid(), number)


def _decode(content: bytes) -> str:
    for encoding in (sys.stdin.encoding, "utf-8"):
        with suppress(UnicodeDecodeError):
            return content.decode(encoding)
    return content.decode("utf-8", "surrogateescape")


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    escapes = (f"\\u{units[start : start + 2].hex()}" for start in range(0, len(units), 2))
    return "".join(escapes), error.end


codecs.register_error(ESCAPED, _escape)
