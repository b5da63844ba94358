"""The output folder: chosen, checked, claimed, and put back if the training fails before its first step."""

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from clm_core.checkpoints import NAME
from clm_core.config import TrainConfig
from clm_core.data.readers.remote import RemoteFile, is_remote
from clm_core.durable import share
from clm_core.errors import OutputError
from clm_core.record import LOGS, RUN_FILE, UPLOADING, WRITTEN
from clm_core.screen.endings import ERROR_LOG, mark

STANDARD_STREAMS = ("/dev/stdout", "/dev/stderr", "/dev/fd/1", "/dev/fd/2")

TEMPORARY = (".model-", ".checkpoint-", UPLOADING)


@dataclass
class Claim:
    """The folder of a run while it is trained."""

    folder: Path
    begun: bool = False
    """Whether a step finished, so that there is something worth keeping."""


def check(folder: Path, *, overwrite: bool, resume_from: Path | None) -> None:
    """Make sure that a run can be written to the folder; nothing is written.

    Raises:
        OutputError: it is a file, cannot be written, or contains something that would be lost.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"output_dir {folder} is a file: choose a folder")
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise OutputError(f"output_dir {folder} cannot be written: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"output_dir {folder} cannot be written: no permission in {existing}")
    if folder.is_dir() and not _is_resumed(folder, resume_from):
        _check_contents(folder, overwrite=overwrite)


@contextmanager
def claimed(config: TrainConfig, backend: str, resume_from: Path | None) -> Iterator[Claim]:
    """The folder of a run, created or taken over; restored if the training fails before its first step.

    Raises:
        OutputError: it cannot be created, or another run came first.
    """
    # There are three cases, and what a failure before the first step leaves in each:
    #   a new folder       nothing: what the run wrote is removed, and the folder with it
    #   a replaced run     the earlier run: it waited beside the folder, in `_aside`, until the first step was made
    #   a resumed run      the run as it is, which can be resumed again
    # After the first step, what there is of the run stays, and only the earlier run goes.
    try:
        folder = _make(config, backend, resume_from)
    except OSError as error:
        raise OutputError(f"output_dir {error.filename} cannot be written: {error.strerror}") from None
    claim = Claim(folder)
    (folder / ERROR_LOG).unlink(missing_ok=True)  # From the error that ended the run before it was resumed.
    try:
        yield claim
    except BaseException as error:
        if not claim.begun and not _is_resumed(folder, resume_from):
            _remove_run(folder)
            if _aside(folder).is_dir():
                _move_run(_aside(folder), folder)
            with suppress(OSError):  # Fails if there is something else in it.
                folder.rmdir()
        else:
            mark(error, folder)
        raise
    finally:
        shutil.rmtree(_aside(folder), ignore_errors=True)


def _make(config: TrainConfig, backend: str, resume_from: Path | None) -> Path:
    if config.output_dir is None:
        return _first_free(config, backend)
    folder = Path(config.output_dir)
    check(folder, overwrite=config.overwrite_output_dir, resume_from=resume_from)
    if folder.is_dir() and not _is_resumed(folder, resume_from) and any(folder.iterdir()):
        shutil.rmtree(_aside(folder), ignore_errors=True)
        _aside(folder).mkdir()
        _move_run(folder, _aside(folder))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _move_run(source: Path, target: Path) -> None:
    """Move what a run has written, and nothing else in the folder."""
    for path in source.iterdir():
        if _is_of_run(path):
            path.rename(target / path.name)


def _remove_run(folder: Path) -> None:
    for path in folder.iterdir():
        if _is_of_run(path):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _aside(folder: Path) -> Path:
    """The folder to which an earlier run is moved until the one that replaces it has started."""
    whole = folder.resolve()  # `.` has no name.
    return whole.with_name(f".{whole.name}.replaced")


def _first_free(config: TrainConfig, backend: str) -> Path:
    """Create runs/NAME-BACKEND, or the first free one with a number; NAME describes the data."""
    files = config.train_file[:1]
    source = config.prepared or config.dataset_name or (_stem(files[0]) if files else "sample")
    name = f"{Path(source).name.strip('*?') or 'run'}-{backend}"
    Path("runs").mkdir(exist_ok=True)
    for number in count(1):
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            break
    return folder


def _stem(path: str) -> str:
    """The name of a file without its endings; of a URL, without a query."""
    return (RemoteFile(path) if is_remote(path) else Path(path)).name.split(".")[0]


def _is_resumed(folder: Path, resume_from: Path | None) -> bool:
    return resume_from is not None and folder.resolve() == resume_from.resolve().parent


def _check_contents(folder: Path, *, overwrite: bool) -> None:
    if (folder / RUN_FILE).exists():
        if not overwrite:
            raise OutputError(
                f"output_dir {folder} contains another run: choose another folder with --output-dir, resume it with "
                f"--resume-from-checkpoint {shlex.quote(str(folder))}, or delete it with --overwrite-output-dir"
            )
    elif any(folder.iterdir()):
        raise OutputError(f"output_dir {folder} is not empty and does not contain a run: choose another folder")


def _is_of_run(path: Path) -> bool:
    """Whether a run writes files and folders of this name."""
    if path.is_dir():
        return bool(NAME.fullmatch(path.name)) or path.name == LOGS or path.name.startswith(TEMPORARY)
    return path.name.lstrip(".") in WRITTEN or ".safetensors" in path.suffixes


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A folder in which a model is written; its files move into the run's when the block ends well."""
    with tempfile.TemporaryDirectory(prefix=".model-", dir=folder) as temporary:
        yield Path(temporary)
        share(Path(temporary))
        for path in sorted(Path(temporary).iterdir()):
            path.replace(folder / path.name)


def check_output_file(name: str) -> None:
    """Make sure, before any work, that a result can be written to this file.

    Raises:
        OutputError: it is a folder, its folder does not exist, or it is a stream that libraries are kept from.
    """
    path = Path(name).absolute()
    if not path.parent.is_dir():
        raise OutputError(f"output_file {name}: its folder does not exist")
    if path.is_dir():
        raise OutputError(f"output_file {name} is a folder: name a file in it")
    if name in STANDARD_STREAMS:
        raise OutputError(f"output_file {name}: use --json, which prints the result on standard output")
