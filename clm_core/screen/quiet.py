"""Hides what frameworks print, and shows it when something fails."""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import IO, TextIO

from clm_core.errors import ClmError
from clm_core.screen.standard_streams import error_stream

TAIL = 20_000
"""How many bytes of hidden output are shown after a crash."""


@contextmanager
def hushed(*, verbose: bool) -> Iterator[TextIO]:
    """Send standard error's file descriptor, and output's, to a temporary file, and yield a stream to the real one.

    C++ and Rust code of the libraries writes to the descriptors, past anything Python could filter. What Python
    code writes to `sys.stderr`, such as the bar of a download, still goes to the person. What was kept becomes a note
    on an error that is not ours, since it may say why.
    """
    sys.stderr.flush()
    if verbose:
        with error_stream(os.dup(2)) as stream, redirect_stderr(stream):
            yield stream
        return
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    real = os.dup(2)
    with _kept_file() as kept, error_stream(real) as stream, _output_into(kept.fileno()):
        os.dup2(kept.fileno(), 2)
        usual, sys.stderr = sys.stderr, stream
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield stream
        except ClmError:
            raise
        except Exception as error:
            if said := _tail(kept.fileno()):
                error.add_note(f"Earlier output on standard error:\n{said}")
            raise
        finally:
            logging.disable(level)
            sys.stderr = usual
            os.dup2(real, 2)


@contextmanager
def silenced() -> Iterator[None]:
    """Discard standard error at the level of the descriptor, while a framework is imported and nothing else happens."""
    real = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(real, 2)
            os.close(real)


@contextmanager
def _output_into(kept: int) -> Iterator[None]:
    """What is printed, after the block, may be one object for a program, and tokenizers writes its warnings there."""
    real = os.dup(1)
    sys.stdout.flush()
    os.dup2(kept, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(real, 1)
        os.close(real)


def _kept_file() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError:  # No folder is writable, or the disk is full; hidden output is not worth an error.
        return Path(os.devnull).open("w+b")


def _tail(descriptor: int) -> str:
    size = os.lseek(descriptor, 0, os.SEEK_END)
    os.lseek(descriptor, max(0, size - TAIL), os.SEEK_SET)
    return os.read(descriptor, TAIL).decode(errors="replace")
