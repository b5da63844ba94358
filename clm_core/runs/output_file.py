"""The file that a result is written to: checked before any work, and none that something else needs."""

from collections.abc import Iterable
from pathlib import Path

from clm_core.checkpoints import MARKER
from clm_core.data.manifest import MANIFEST
from clm_core.durable.lock import LOCK
from clm_core.errors import OutputError
from clm_core.record import is_shared
from clm_core.runs.output import has_run
from clm_core.screen.endings import ERROR_LOG
from clm_core.stopping import STOP_FILE

STANDARD_STREAMS = ("/dev/stdout", "/dev/stderr", "/dev/fd/1", "/dev/fd/2")


def check_output_file(name: str, inputs: Iterable[Path] = ()) -> None:
    """Make sure, before any work, that a result can be written to this file, which is none of the inputs.

    Raises:
        OutputError: it is a folder, its folder does not exist, it is a stream that libraries are kept from, or it
            would replace an input, or a file of a model, a checkpoint or prepared data.
    """
    path = Path(name).absolute()
    if not path.parent.is_dir():
        raise OutputError(f"output_file {name}: its folder does not exist")
    if path.is_dir():
        raise OutputError(f"output_file {name} is a folder: name a file in it")
    if name in STANDARD_STREAMS:
        raise OutputError(f"output_file {name}: use --json, which prints the result on standard output")
    target = path.resolve()
    if target.exists() and _belongs(target):
        raise OutputError(f"output_file {name} would replace a file of {target.parent}: choose another name")
    if target.exists() and target in {path.resolve() for path in inputs}:
        raise OutputError(f"output_file {name} would replace a file that is to be read: choose another name")


def _belongs(file: Path) -> bool:
    """Whether a file is one that clm wrote as a part of a run, a model, a checkpoint or prepared data."""
    folder, name = file.parent, file.name
    if any((folder / listing).is_file() for listing in (MARKER, MANIFEST)):
        return True
    is_of_run = has_run(folder) and name in (ERROR_LOG, LOCK, STOP_FILE)
    return is_of_run or (is_shared(name) and (has_run(folder) or any(folder.glob("*.safetensors"))))
