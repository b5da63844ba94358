"""The run's folder: chosen, checked, held by one process, and put back if the training fails before its first step."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from clm_core.checkpoints import MARKER, list_complete, run_of
from clm_core.config import TrainConfig
from clm_core.data.readers.remote import RemoteFile, is_remote
from clm_core.durable import remove, share, sync_folder
from clm_core.durable.disk_errors import is_disk_error, size_of, writing
from clm_core.durable.files import temporary_folder
from clm_core.durable.lock import LOCK, BlockedError, HeldError, locked
from clm_core.errors import DiskError, OutputError
from clm_core.models.finite import check_finite
from clm_core.options.resolve import AUTO
from clm_core.paths import in_command
from clm_core.record import HISTORY_FILE, RESULTS_FILE, RUN_FILE, files_of_model, stays
from clm_core.runs import leftovers
from clm_core.screen.endings import ERROR_LOG, mark
from clm_core.stopping import STOP_FILE

TICK = 0.02
"""Seconds by which the time of a file may lie before that of the clock."""


@dataclass
class Claim:
    """The folder of a run while it is trained."""

    folder: Path
    begun: bool = False
    """Whether a step finished, so that there is something worth keeping."""

    def begin(self) -> None:
        """Call this after each step: the first one replaces the earlier run for good."""
        if not self.begun:
            leftovers.discard_earlier(self.folder)
            self.begun = True


def check(folder: Path, *, overwrite: bool, resume_from: Path | None) -> None:
    """Make sure that a run can be written to the folder; nothing is written.

    Raises:
        OutputError: it is a file, cannot be written, or contains something that would be lost.
    """
    check_writable(folder)
    if (folder / MARKER).is_file():
        raise OutputError(f"output_dir {folder} is a checkpoint, which a run would replace: choose another folder")
    if folder.is_dir() and is_resumed(folder, resume_from):
        _check_is_run(folder)
    elif folder.is_dir():
        _check_contents(folder, overwrite=overwrite)


def replaces(config: TrainConfig, resume_from: Path | None) -> bool:
    """Whether a run in the folder is to be replaced: as asked, or since it is resumed and has no checkpoint yet.

    Then it starts again, perhaps from the checkpoint of another run that it had begun from.
    """
    named, folder = config.resume_from_checkpoint, Path(config.output_dir or "")
    if config.overwrite_output_dir or named is None or resume_from is None:
        return config.overwrite_output_dir or named is not None
    is_its_own = named == AUTO or Path(named).resolve() == folder.resolve()
    return is_its_own and not is_resumed(folder, resume_from)


@contextmanager
def held(folder: Path | None) -> Iterator[bool]:
    """Keep other processes from a run that is there already, and put right what a killed one left in it.

    It says whether there was one: a folder without a run is locked once it is claimed.

    Raises:
        OutputError: another process trains there, or the folder, or a file in it, cannot be written.
    """
    if folder is None or not folder.is_dir() or not (has_run(folder) or leftovers.are_in(folder)):
        yield False
        return
    check_writable(folder)
    _check_files(folder)
    with _locked(folder):
        with writing(folder, within=folder):
            leftovers.put_right(folder)
        yield True


@contextmanager
def claimed(
    config: TrainConfig, backend: str, resume_from: Path | None, *, since: float | None, is_held: bool = False
) -> Iterator[Claim]:
    """The folder of a run, created or taken over; restored if the training fails before its first step.

    What asked an earlier run in it to stop, before `since`, is removed; nothing is if that is None.

    Raises:
        OutputError: it cannot be created, or another run came first.
    """
    # There are three cases, and what a failure before the first step leaves in each, also one that nobody can catch:
    #   a new folder       nothing: what the run wrote is removed, and the folder with it
    #   a replaced run     the earlier run: it waits in a folder in this one until the first step is made
    #   a resumed run      the run as it is, which can be resumed again
    # After the first step, what there is of the run stays, and only the earlier run goes.
    with ExitStack() as lock:
        try:
            folder = _make(config, backend, resume_from, lock, is_held=is_held)
        except OSError as error:
            raise _cannot_be_written(error.filename, error) from None
        claim = Claim(folder)
        try:
            with writing(folder, within=folder):
                remove(folder / ERROR_LOG)  # From what ended the run before it was resumed.
            forget_stop(folder, since)
            yield claim
        except BaseException as error:
            if claim.begun or is_resumed(folder, resume_from):
                mark(error, folder)
            else:
                with writing(folder, within=folder):
                    leftovers.take_back(folder)
                lock.close()
                with suppress(OSError):  # Fails if there is something else in it.
                    folder.rmdir()
            raise


def forget_stop(folder: Path, since: float | None) -> None:
    """Remove the file that asks a training to stop, if it is from before `since`: it asked an earlier one.

    If `since` is None, there was none.

    Raises:
        DiskError: it cannot be removed.
    """
    file = folder / STOP_FILE
    with writing(file):
        if since is not None and os.path.lexists(file) and file.lstat().st_mtime < since - TICK:
            remove(file)


@contextmanager
def reserved(config: TrainConfig, backend: str) -> Iterator[Path]:
    """The folder of a run that other processes are to write: as asked, or the first free one, which is made for them.

    If nothing comes to lie in it, it is removed again.
    """
    folder = _first_free(config, backend) if config.output_dir is None else Path(config.output_dir)
    try:
        yield folder
    finally:
        if config.output_dir is None:
            with suppress(OSError):  # There is something in it.
                folder.rmdir()


def default_folder(config: TrainConfig, backend: str) -> Path:
    """runs/NAME-BACKEND, where NAME describes the data."""
    files = config.train_file[:1]
    source = config.prepared or config.dataset_name or (_stem(files[0]) if files else "sample")
    return Path("runs") / f"{Path(source).name.strip('*?') or 'run'}-{backend}"


def has_run(folder: Path) -> bool:
    """Whether a run was begun in this folder."""
    return os.path.lexists(folder / RUN_FILE) or bool(list_complete(folder))


def is_resumed(folder: Path, resume_from: Path | None) -> bool:
    """Whether it is the run in this folder that the checkpoint belongs to."""
    return resume_from is not None and folder.resolve() == run_of(resume_from).resolve()


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A folder in which a model is written; its files move into the run's when the block ends well.

    Raises:
        DiskError: the disk does not take them.
        TrainingError: a weight is not finite.
    """
    with (
        temporary_folder(folder, leftovers.MODEL) as temporary,
        writing(folder, within=folder, needs=lambda: _size_of_model(folder), temporary=temporary),
    ):
        yield temporary
        check_finite(temporary)
        share(temporary)
        for path in sorted(temporary.iterdir()):
            path.replace(folder / path.name)
        sync_folder(folder)


def check_writable(folder: Path) -> None:
    """Make sure that a folder, if it is to be made too, can be written.

    Raises:
        OutputError: it cannot, or something else is in its place.
    """
    try:
        os.fspath(folder).encode()
    except UnicodeEncodeError:  # safetensors takes no other name.
        raise OutputError(f"output_dir {folder} is not UTF-8: choose another name") from None
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"output_dir {folder} is a file: choose a folder")
    if folder.is_symlink() and not folder.exists():
        raise OutputError(f"output_dir {folder} is a link to {folder.readlink()}, which is not there: choose a folder")
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise OutputError(f"output_dir {folder} cannot be written: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        why = f"{existing} is on a read-only disk" if _is_read_only(existing) else f"no permission in {existing}"
        raise OutputError(f"output_dir {folder} cannot be written: {why}: choose another folder with --output-dir")


def _make(config: TrainConfig, backend: str, resume_from: Path | None, lock: ExitStack, *, is_held: bool) -> Path:
    folder = _first_free(config, backend) if config.output_dir is None else Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if not is_held:
        lock.enter_context(_locked(folder))
    check(folder, overwrite=replaces(config, resume_from), resume_from=resume_from)
    if not is_resumed(folder, resume_from):
        leftovers.set_aside(folder)
    return folder


def _first_free(config: TrainConfig, backend: str) -> Path:
    """Create the default folder, or the first free one with a number."""
    default = default_folder(config, backend)
    default.parent.mkdir(exist_ok=True)
    for number in count(1):
        folder = default if number == 1 else default.with_name(f"{default.name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            break
    return folder


def _size_of_model(folder: Path) -> int:
    """The bytes of the model in the latest checkpoint, if there is one; the trained one has as many."""
    return sum(size_of(file) for newest in list_complete(folder)[-1:] for file in files_of_model(newest))


def _stem(path: str) -> str:
    """The name of a file without its endings; of a URL, without a query."""
    return (RemoteFile(path) if is_remote(path) else Path(path)).name.split(".")[0]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
        except HeldError as error:
            raise OutputError(
                f"output_dir {folder} is in use by {error}: wait until that has ended, or choose another folder with "
                "--output-dir"
            ) from None
        except BlockedError as error:
            raise OutputError(
                f"output_dir {folder} cannot be locked: {error}: if no other process trains there, remove it, or "
                "choose another folder with --output-dir"
            ) from None
        except OSError as error:
            raise _cannot_be_written(folder, error) from None
        yield


def _is_read_only(folder: Path) -> bool:
    """Whether it is the disk that is not to be written, as far as the system says so."""
    return hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def _check_files(folder: Path) -> None:
    """What else lies in the place of a file, such as a link, the file replaces; a folder may have anything in it."""
    for path in sorted(folder.iterdir()):
        if stays(path.name) and path.is_dir() and not path.is_symlink():
            raise OutputError(f"{path} is a folder in the place of a file of the run: remove it")


def _cannot_be_written(place: object, error: OSError) -> OutputError:
    """A disk that is full or fails has a code of its own; a permission, or a name that is too long, is an option's."""
    of_disk = is_disk_error(error) and not isinstance(error, PermissionError)
    return (DiskError if of_disk else OutputError)(f"output_dir {place} cannot be written: {error.strerror}")


def _check_is_run(folder: Path) -> None:
    """A checkpoint that somebody has copied to their own files, or made a link to there, makes no run of them."""
    names = {path.name for path in folder.iterdir()}
    own = {name for name in names if name.startswith(".") or name == STOP_FILE or (folder / name / MARKER).is_file()}
    if names - own and not names & {RUN_FILE, HISTORY_FILE, RESULTS_FILE}:
        raise OutputError(
            f"{folder} has a checkpoint, but is not the folder of a run, and has other files: choose a folder for the "
            "run with --output-dir"
        )


def _check_contents(folder: Path, *, overwrite: bool) -> None:
    if has_run(folder):
        if not overwrite:
            raise OutputError(
                f"output_dir {folder} contains another run: choose another folder with --output-dir, resume it with "
                f"--resume-from-checkpoint {in_command(folder)}, or delete it with --overwrite-output-dir"
            )
    elif any(path.name not in (LOCK, STOP_FILE) for path in folder.iterdir()):
        raise OutputError(f"output_dir {folder} is not empty and does not contain a run: choose another folder")
