"""Standard input and output in the encoding of any terminal: nothing that is read or printed is too much for it."""

import codecs
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from clm_core.errors import OptionError

ESCAPED = "clm.escaped"
"""The name of a codec's error handler: what an encoding lacks is written as JSON escapes it, which stays JSON."""


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
    print(text if is_utf8 else text.encode("ascii", ESCAPED).decode())


def read_input() -> str:
    """All of standard input to the last character, but for one line break at its end; surrogates for broken bytes.

    Raises:
        OptionError: standard input is closed.
    """
    if sys.stdin is None:
        raise OptionError("no prompt was given, and standard input is closed")
    text = _decode(sys.stdin.buffer.read()) if isinstance(sys.stdin, io.TextIOWrapper) else sys.stdin.read()
    return text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n")


def _decode(content: bytes) -> str:
    for encoding in (sys.stdin.encoding, "utf-8"):
        with suppress(UnicodeDecodeError):
            return content.decode(encoding)
    return content.decode("utf-8", "surrogateescape")


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    escapes = (f"\\u{units[place : place + 2].hex()}" for place in range(0, len(units), 2))
    return "".join(escapes), error.end


codecs.register_error(ESCAPED, _escape)
