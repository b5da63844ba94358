"""Puts back a file of a run that was changed or removed while the run was trained, before the results prove it."""

from collections.abc import Callable
from pathlib import Path

from clm_core.durable import replace
from clm_core.durable.disk_errors import writing


def restore(file: Path, text: str, say: Callable[[str], None]) -> None:
    """Write a file again if it is not as the run has written it, and say so.

    Raises:
        DiskError: it cannot be written.
    """
    content = text.encode()
    if file.is_file() and not file.is_symlink() and file.read_bytes() == content:
        return
    with writing(file, needs=lambda: len(content)):
        replace(file, content)
    say(f"{file} was changed or removed while the run was trained: restored")
