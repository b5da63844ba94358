"""Checkpoints of a run: written whole or not at all, checked, found to resume from, removed.

A checkpoint is a folder `checkpoint-STEP`. It counts once it contains `checkpoint.json`, which is written last and has
the size and the SHA-256 of every file; a folder without it, left by a crash, is never used, nor is one whose files
have changed. Weights and the optimizer's state have the same layout from every backend, so that a training can resume
in another framework. There is no random state: the dropout of a step follows from the seed and the step.
"""

import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clm_core.backend import Saved, TrainingJob
from clm_core.durable import checksums, copy, disk_errors, remove, share, sync_folder
from clm_core.durable.files import temporary_folder, unforeseen
from clm_core.errors import DiskFullError, ModelError, OutputError
from clm_core.marker import FILES, MARKER, NAME, PREFIX, backend_of, faults, has_sums, mark, read, step_of
from clm_core.models.finite import check_finite
from clm_core.optimizer.state import FILE as MOMENTS
from clm_core.optimizer.state import (
    Moments,
    State,
    check_files,
    read_moments,
    read_states,
    write_moments,
    write_states,
)
from clm_core.paths import likely
from clm_core.record import HISTORY_FILE, files_of_model
from clm_core.schedule import Schedule

__all__ = [
    "MARKER",
    "MOMENTS",
    "NAME",
    "Moments",
    "State",
    "backend_of",
    "check_continues",
    "check_files",
    "check_whole",
    "complete",
    "copy_model",
    "faults",
    "find",
    "has_sums",
    "is_current",
    "list_complete",
    "newest_whole",
    "prune",
    "read_moments",
    "read_states",
    "run_of",
    "save",
    "step_of",
    "take_last_model",
    "write_moments",
    "write_states",
    "writing",
]

TEMPORARY = ".checkpoint-"
"""Prefix of the name of a folder in which a checkpoint is written; what follows cannot be foreseen."""


def save(job: TrainingJob, step: int, write: Callable[[Path], None]) -> None:
    """Write the checkpoint of `step`: `write(folder)` writes what the backend keeps in it, `writing` does the rest.

    Where the disk is full, the checkpoints that `save_total_limit` would remove after this one go first, but never the
    last that is whole, and it is tried once more: what is in memory is not to be lost for them.

    Raises:
        DiskError: it cannot be written; the earlier checkpoints are whole. What else `write` raises comes through.
    """
    try:
        with writing(job, step) as folder:
            write(folder)
    except DiskFullError:
        if not (spare := _spare(job, step)):
            raise
        for path in spare:
            _discard(path)
        with writing(job, step) as folder:
            write(folder)


@contextmanager
def writing(job: TrainingJob, step: int) -> Iterator[Path]:
    """A folder for what the backend keeps in the checkpoint of `step`; what the core keeps is added at the end.

    When the block ends well, the checkpoint is on the disk, marked as whole and in its place, those beyond
    `save_total_limit` are gone, and the job has heard that it was saved. Else nothing of it is left.

    Raises:
        DiskError: the disk does not take it.
        TrainingError: a weight is not finite.
    """
    final = job.output_dir / f"{PREFIX}{step}"
    with disk_errors.writing(final), temporary_folder(job.output_dir, TEMPORARY) as folder:
        written = folder / final.name
        written.mkdir()  # A temporary folder itself is for its owner alone.
        with disk_errors.writing(final, needs=lambda: _size_of_newest(job), temporary=written):
            yield written
            job.add_to_checkpoint(written)
            check_finite(written)
            share(written)
            # The marker is the last, after all else is synced: what has it is whole, wherever the power fails.
            mark(written, step=step, backend=job.backend, identity=job.schedule.identity())
        if os.path.lexists(final):
            final.rename(folder / "earlier")
        written.rename(final)
        sync_folder(job.output_dir)
    prune(job, step)
    job.report(Saved(step=step, path=final))


def complete(job: TrainingJob, step: int, *, backend: str) -> Path:
    """The folder of a checkpoint that `writing` has completed; for backends from when that was a separate step."""
    return job.output_dir / f"{PREFIX}{step}"


def copy_model(checkpoint: Path, model_dir: Path) -> None:
    """Copy the model of a checkpoint to a folder.

    Raises:
        OutputError: the copies are not what was written into the checkpoint.
    """
    names = [path.name for path in files_of_model(checkpoint)]
    for name in names:
        copy(checkpoint / name, model_dir / name)
    listed = read(checkpoint).get(FILES, {})
    if wrong := checksums.faults(model_dir, {name: listed[name] for name in names if name in listed}):
        raise OutputError(f"the model of {checkpoint} was not copied whole: {', '.join(wrong)}: is the disk failing?")


def take_last_model(job: TrainingJob) -> bool:
    """Copy the model that this training has saved at its last step to `job.model_dir`, in the process that leads.

    Returns whether it has; if not, the model is still to be written. A training that had no step to make did not.

    Raises:
        ModelError: the checkpoint is damaged.
        OutputError: the copies are not what was written into the checkpoint.
    """
    last = job.schedule.total_steps
    checkpoint = job.output_dir / f"{PREFIX}{last}"
    is_saved = job.first_step < last and job.schedule.saves_at(last)
    if job.world.size == 1 and not (checkpoint / MARKER).is_file():  # `report` may have removed it.
        return False
    if is_saved and job.world.leads:
        copy_model(checkpoint, job.model_dir)
    return is_saved


def list_complete(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = [path for path in run.iterdir() if NAME.fullmatch(path.name) and (path / MARKER).is_file()]
    return sorted(found, key=_step_in)


def find(path: Path, say: Callable[[str], None] = lambda line: None) -> Path:
    """The checkpoint at `path`, or the latest whole one of the run at `path`; `say` hears which ones are damaged.

    Raises:
        ModelError: there is no complete checkpoint, or it is damaged.
    """
    if (path / MARKER).is_file():
        check_whole(path)
        return path
    if not path.is_dir():
        raise ModelError(f"resume_from_checkpoint: there is no folder {path}{likely(str(path))}")
    if found := newest_whole(path, say):
        return found
    if NAME.fullmatch(path.absolute().name):
        raise ModelError(f"{path} has no {MARKER}: it was never completed, or is damaged: use another checkpoint")
    started = sorted(folder.name for folder in path.iterdir() if NAME.fullmatch(folder.name))
    why = f"{', '.join(started)} never completed" if started else f"no {MARKER} and no checkpoint-STEP folder in it"
    raise ModelError(f"resume_from_checkpoint: {path} is neither a checkpoint nor a run with a checkpoint ({why})")


def newest_whole(run: Path, say: Callable[[str], None] = lambda line: None) -> Path | None:
    """The latest checkpoint of a run that is as it was written; `say` hears of each that is not, or has no marker.

    One from before the run was resumed from an earlier step, which the run's history does not lead to, comes last.

    Raises:
        ModelError: the run has checkpoints, and all of them are damaged.
    """
    for path in sorted(run.iterdir()):
        if NAME.fullmatch(path.name) and not (path / MARKER).is_file():
            say(f"{path} has no {MARKER}: it was never completed, or is damaged, and is not used")
    damaged: dict[str, str] = {}
    found = sorted(list_complete(run), key=lambda path: (_may_be_current(path), _step_in(path)), reverse=True)
    for path in found:
        if not (wrong := faults(path)):
            later = [each for each in found if _step_in(each) > _step_in(path) and each.name not in damaged]
            for name, line in {**damaged, **{each.name: _why_not(each) for each in later}}.items():
                say(f"{line}: {name} is not used, but {path.name}")
            return path
        damaged[path.name] = _damage(path, wrong)
    if damaged:
        raise ModelError(
            f"{'; '.join(damaged.values())}: no checkpoint of this run is left; start it anew with "
            f"--output-dir {shlex.quote(str(run))} --overwrite-output-dir"
        )
    return None


def is_current(checkpoint: Path) -> bool:
    """Whether the history of the run continues that of a checkpoint; that of one of an earlier clm is not known."""
    kept, whole = (folder / HISTORY_FILE for folder in (checkpoint, run_of(checkpoint)))
    if not kept.is_file():
        return True
    return whole.is_file() and not whole.is_symlink() and whole.read_bytes().startswith(kept.read_bytes())


def check_whole(checkpoint: Path) -> None:
    """Make sure that a checkpoint is as it was written.

    Raises:
        ModelError: a file of it is damaged, missing, or from another checkpoint.
    """
    if wrong := faults(checkpoint):
        raise ModelError(f"{_damage(checkpoint, wrong)}: use another checkpoint")


def run_of(checkpoint: Path) -> Path:
    """The folder of the run that a checkpoint lies in, also where it is a link to elsewhere, or named `.`."""
    named = checkpoint.name not in ("", "..")
    return checkpoint.parent if named else Path(os.path.abspath(checkpoint)).parent  # noqa: PTH100  (not through links)


def check_continues(checkpoint: Path, schedule: Schedule, *, backend: str, data: str = "the data") -> int:
    """Make sure that a training can resume from the checkpoint, and return the checkpoint's step.

    `data` names the option that says where the text is.

    Raises:
        ModelError: the checkpoint is from a backend that writes no moments for others, its blocks came in another
            order, or it has made more steps than the training is to have.
    """
    record = read(checkpoint)
    if record["backend"] != backend and not (checkpoint / MOMENTS).is_file():
        raise ModelError(
            f"{checkpoint} was written by backend {record['backend']}, which writes no {MOMENTS} for others: resume "
            f"with --backend {record['backend']}, or start a new training from its weights with --model-name-or-path "
            f"{shlex.quote(str(checkpoint))}"
        )
    for key, value in schedule.identity().items():
        if record.get(key) != value and key == "data":
            raise ModelError(f"{checkpoint} was trained on other text than there is in {data} now: use the same")
        if record.get(key) != value and key == "order":
            raise ModelError(
                f"{checkpoint} was written by an earlier clm, which ordered {schedule.blocks:,} blocks differently: "
                "resume with that version, or start a new training from its weights with --model-name-or-path "
                f"{shlex.quote(str(checkpoint))}"
            )
        if record.get(key) != value:
            raise ModelError(
                f"{checkpoint} was trained with {key} {record.get(key)}, this run has {value}: use the same"
            )
    step: int = record["step"]
    if step > schedule.total_steps:
        raise ModelError(
            f"{checkpoint} has made {step} steps, more than the {schedule.total_steps} of this training: "
            "raise --max-steps, --num-train-epochs or --max-trained-tokens, or resume from an earlier checkpoint"
        )
    return step


def prune(job: TrainingJob, step: int) -> None:
    """Remove the oldest checkpoints beyond `save_total_limit`, but never the best; of one that is a link, the link."""
    if limit := job.config.save_total_limit:
        for old in _not_best(job, _until(job, step)[:-limit]):
            with disk_errors.writing(old):
                _discard(old)


def _may_be_current(checkpoint: Path) -> bool:
    """Whether a checkpoint is current, or would be if the end of the run's history had not been cut off."""
    kept, whole = (folder / HISTORY_FILE for folder in (checkpoint, run_of(checkpoint)))
    if is_current(checkpoint) or not whole.is_file() or whole.is_symlink():
        return is_current(checkpoint)
    lines = whole.read_bytes()
    return kept.read_bytes().startswith(lines[: lines.rfind(b"\n") + 1])


def _why_not(checkpoint: Path) -> str:
    """Why a checkpoint is passed over that the run's history does not lead to."""
    if wrong := faults(checkpoint):
        return _damage(checkpoint, wrong)
    return f"{checkpoint} is none that {run_of(checkpoint) / HISTORY_FILE} leads to"


def _damage(checkpoint: Path, wrong: list[str]) -> str:
    return f"{checkpoint} is damaged: {', '.join(wrong)}"


def _discard(checkpoint: Path) -> None:
    """Remove a checkpoint under another name, so that a kill on the way leaves nothing that looks like one."""
    remove(checkpoint.rename(unforeseen(checkpoint.parent, TEMPORARY)))


def _spare(job: TrainingJob, step: int) -> list[Path]:
    """What `prune` would remove once the checkpoint of this step is there, but never the last one that is whole."""
    limit = job.config.save_total_limit
    earlier = [path for path in _until(job, step) if _step_in(path) != step]
    return _not_best(job, earlier[: -max(1, limit - 1)]) if limit else []


def _not_best(job: TrainingJob, paths: list[Path]) -> list[Path]:
    best = job.best_step()
    return [path for path in paths if _step_in(path) != best]


def _until(job: TrainingJob, step: int) -> list[Path]:
    """The complete checkpoints up to a step; later ones, of a run that is repeated from an earlier one, are not old."""
    return [path for path in list_complete(job.output_dir) if _step_in(path) <= step]


def _size_of_newest(job: TrainingJob) -> int:
    """The bytes of the complete checkpoint of most steps, if there is one; the next one has about as many."""
    return sum(map(disk_errors.size_of, list_complete(job.output_dir)[-1:]))


def _step_in(folder: Path) -> int:
    return int(folder.name.removeprefix(PREFIX))
