"""Keeps what frameworks print away from the person, and shows it when something went wrong after all."""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

TAIL = 20_000
"""Bytes of kept noise that are shown after a crash."""


@contextmanager
def hushed(*, verbose: bool) -> Iterator[TextIO]:
    """Send the file descriptor of standard error to a temporary file, and yield a stream to the real one.

    C++ code of the frameworks writes to the descriptor, past anything Python could filter. What Python
    code writes to `sys.stderr`, such as the bar of a download, still goes to the person. When an error ends
    the block, what was kept is shown, since it may say why.
    """
    if verbose:
        yield sys.stderr
        return
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as kept, os.fdopen(real, "w", buffering=1, errors="replace") as stream:
        os.dup2(kept.fileno(), 2)
        usual, sys.stderr = sys.stderr, stream
        try:
            yield stream
        except Exception:
            _show_tail(kept.fileno(), stream)
            raise
        finally:
            sys.stderr = usual
            os.dup2(real, 2)


def _show_tail(descriptor: int, stream: TextIO) -> None:
    size = os.lseek(descriptor, 0, os.SEEK_END)
    os.lseek(descriptor, max(0, size - TAIL), os.SEEK_SET)
    stream.write(os.read(descriptor, TAIL).decode(errors="replace"))
