"""What processes that work together must have in common besides their options: clm, the weights, the data."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from clm_core.backend import Model, World
from clm_core.backend.adapter import WEIGHTS
from clm_core.models import weight_files
from clm_core.models.weight_files import StoredWeights
from clm_core.results import versions


def in_common(model: Model, data: Mapping[str, str], world: World) -> dict[str, str]:
    """What `check_same` compares, for the `in_common` of a job; nothing where there is one process.

    `data` has the digests of what is trained or scored on, by its name.

    Raises:
        ModelError: a weight file is damaged.
    """
    if world.is_one_process:
        return {}
    return {"version of clm": versions(())["clm"], "weights": _sample(model), **data}


def _sample(model: Model) -> str:
    """A digest of the first numbers of each tensor: two models of one shape differ there; the files may be large."""
    digest = hashlib.sha256(str(model.seed).encode())  # By which what is in no file is drawn.
    folder = model.adapter.folder if model.adapter else None
    if folder is not None:
        adapted = replace(model, name_or_path=folder)
        digest.update(StoredWeights(adapted, [Path(folder) / WEIGHTS]).sample())
    if model.name_or_path is not None:
        digest.update(StoredWeights(model, weight_files.find(model)).sample())
    return digest.hexdigest()[:16]
