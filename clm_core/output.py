"""The folder of a run: chosen, checked before anything is written, filled with files that are whole or not there."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clm_core.checkpoints import NAME
from clm_core.config import TrainConfig
from clm_core.errors import OutputError
from clm_core.recorder import HISTORY_FILE
from clm_core.requests import RUN_FILE

RESULTS_FILE = "results.json"
LOGS = "logs"


def default_folder(config: TrainConfig, backend: str) -> Path:
    """The first free runs/NAME-BACKEND, where NAME says what the data are."""
    files = config.train_file[:1]
    source = config.prepared or config.dataset_name or (Path(files[0]).name.split(".")[0] if files else "sample")
    name = f"{Path(source).name.strip('*?') or 'run'}-{backend}"
    folder, number = Path("runs") / name, 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder


def check(folder: Path, *, overwrite: bool, resume: bool) -> None:
    """Make sure that a run can be written to the folder; nothing is written.

    Raises:
        OutputError: it is a file, cannot be written, or holds something that would be lost.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"output_dir {folder} is a file: choose a folder")
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise OutputError(f"output_dir {folder} cannot be written: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"output_dir {folder} cannot be written: no permission in {existing}")
    if not folder.is_dir() or resume:
        return
    if (folder / RUN_FILE).exists():
        if not overwrite:
            raise OutputError(
                f"output_dir {folder} holds another run: choose another folder, go on with it by "
                f"--resume-from-checkpoint {folder}, or delete it with --overwrite-output-dir"
            )
    elif any(folder.iterdir()):
        raise OutputError(f"output_dir {folder} is not empty and holds no run: choose another folder")


def create(folder: Path) -> None:
    """Make the folder.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"output_dir {folder} cannot be written: {error.strerror}") from None


def clear(folder: Path) -> None:
    """Delete what an earlier run left in the folder, and nothing else."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and (NAME.fullmatch(path.name) or path.name == LOGS):
            shutil.rmtree(path)
        elif path.name in (RUN_FILE, RESULTS_FILE, HISTORY_FILE) or path.suffix == ".safetensors":
            path.unlink()


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A folder in which a model is written; its files move into the run's when the block ends well."""
    with tempfile.TemporaryDirectory(prefix=".model-", dir=folder) as temporary:
        yield Path(temporary)
        for path in sorted(Path(temporary).iterdir()):
            path.chmod(path.stat().st_mode | 0o044 & folder.stat().st_mode)  # safetensors writes for the owner alone.
            path.replace(folder / path.name)


def write(path: Path, text: str) -> None:
    """Write a file that is never half there."""
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
