"""Checkpoints of a run: written whole or not at all, checked, found to resume from, removed.

A checkpoint is a folder `checkpoint-STEP`. It counts once it contains `checkpoint.json`, which is written last and has
the size and the SHA-256 of every file; a folder without it, left by a crash, is never used, nor is one whose files
have changed. Weights and the optimizer's state have the same layout from every backend, so that a training can resume
in another framework. There is no random state: the dropout of a step follows from the seed and the step.
"""

from clm_core.checkpoints.continuing import check_continues
from clm_core.checkpoints.finding import check_whole, find, is_current, list_complete, newest_whole, run_of
from clm_core.checkpoints.saving import TEMPORARY, complete, copy_model, prune, save, take_last_model, writing
from clm_core.marker import MARKER, NAME, PREFIX, backend_of, chosen_in, faults, has_sums, step_in, step_of
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

__all__ = [
    "MARKER",
    "MOMENTS",
    "NAME",
    "PREFIX",
    "TEMPORARY",
    "Moments",
    "State",
    "backend_of",
    "check_continues",
    "check_files",
    "check_whole",
    "chosen_in",
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
    "step_in",
    "step_of",
    "take_last_model",
    "write_moments",
    "write_states",
    "writing",
]
