"""Keeps what frameworks print away from the person, and shows it when something went wrong after all."""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from clm_core.errors import ClmError

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
    sys.stderr.flush()
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    real, encoding = os.dup(2), getattr(sys.stderr, "encoding", None)
    with (
        tempfile.TemporaryFile() as kept,
        os.fdopen(real, "w", buffering=1, encoding=encoding, errors="backslashreplace") as stream,
    ):
        os.dup2(kept.fileno(), 2)
        usual, sys.stderr = sys.stderr, stream
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield stream
        except ClmError:
            raise
        except Exception:
            _show_tail(kept.fileno(), stream)
            raise
        finally:
            logging.disable(level)
            sys.stderr = usual
            os.dup2(real, 2)


def _show_tail(descriptor: int, stream: TextIO) -> None:
    size = os.lseek(descriptor, 0, os.SEEK_END)
    os.lseek(descriptor, max(0, size - TAIL), os.SEEK_SET)
    stream.write(os.read(descriptor, TAIL).decode(errors="replace"))
