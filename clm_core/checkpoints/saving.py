"""Writes a checkpoint, whole or not at all, removes those that are not to be kept, and copies the last one's model."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clm_core.backend import Saved, TrainingJob
from clm_core.checkpoints.finding import list_complete
from clm_core.durable import checksums, copy, disk_errors, remove, share, sync_folder
from clm_core.durable.files import temporary_folder, unforeseen
from clm_core.errors import DiskFullError, OutputError
from clm_core.marker import FILES, MARKER, PREFIX, mark, read, step_in
from clm_core.models.finite import check_finite
from clm_core.record import files_of_model

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
            mark(written, step=step, backend=job.backend, identity=job.schedule.identity(), chosen=job.chosen)
        if os.path.lexists(final):
            final.rename(folder / "earlier")
        written.rename(final)
        sync_folder(job.output_dir)
    job.whole.add(step)
    try:
        prune(job, step)
    finally:  # An earlier one that cannot be removed makes this one no less complete.
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


def prune(job: TrainingJob, step: int) -> None:
    """Remove checkpoints beyond `save_total_limit`, but never the best; of one that is a link, the link."""
    if limit := job.config.save_total_limit:
        for old in _not_best(job, _to_go(job, step)[:-limit]):
            with disk_errors.writing(old, verb="removed"):
                _discard(old)


def _discard(checkpoint: Path) -> None:
    """Remove a checkpoint under another name, so that a kill on the way leaves nothing that looks like one."""
    remove(checkpoint.rename(unforeseen(checkpoint.parent, TEMPORARY)))


def _spare(job: TrainingJob, step: int) -> list[Path]:
    """What `prune` would remove once the checkpoint of this step is there, but never the last one that is whole."""
    limit = job.config.save_total_limit
    earlier = [path for path in _to_go(job, step) if step_in(path) != step]
    return _not_best(job, earlier[: -max(1, limit - 1)]) if limit else []


def _not_best(job: TrainingJob, paths: list[Path]) -> list[Path]:
    best = job.best_step()
    return [path for path in paths if step_in(path) != best]


def _to_go(job: TrainingJob, step: int) -> list[Path]:
    """The complete checkpoints up to a step; later ones, of a run that is repeated from an earlier one, are not old.

    The oldest come first, but before them those of which it is not known that they are whole.
    """
    found = [path for path in list_complete(job.output_dir) if step_in(path) <= step]
    return sorted(found, key=lambda path: (step_in(path) in job.whole, step_in(path)))


def _size_of_newest(job: TrainingJob) -> int:
    """The bytes of the complete checkpoint of most steps, if there is one; the next one has about as many."""
    return sum(map(disk_errors.size_of, list_complete(job.output_dir)[-1:]))
