"""Makes sure that the weights in a folder are finite numbers, before it counts as a checkpoint or a model."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clm_core.errors import TrainingError
from clm_core.models.weight_files import Entry, entries

MODELS = "*model*.safetensors"
"""The files of a model, or of its shards; the optimizer has another."""

FLOATS = {"F64": "<f8", "F32": "<f4"}
HALVES = {"F16": 0x7C00, "BF16": 0x7F80}
"""The bits of the exponent, which are all set in an infinite number and in one that is none."""

PART = 1 << 20
"""Numbers looked at at a time, which fit into the cache of a processor."""


def check_finite(folder: Path) -> None:
    """Make sure that every weight in the safetensors files of a model is finite; whole numbers are.

    Raises:
        TrainingError: one is infinite, or not a number; the message has its name and its place.
    """
    for file in sorted(folder.glob(MODELS)):
        for name, entry in entries(file).items():
            if (found := _not_finite(file, entry)) is not None:
                value, index = found
                where = f" at {index}" if index else ""
                raise TrainingError(f"after the last step, the weight {name} has the value {value}{where}")


def _not_finite(file: Path, entry: Entry) -> tuple[float, list[int]] | None:
    """The first number of a tensor that is not finite, and its index."""
    for start, part in _parts(file, entry):
        if not _are_finite(part, entry.kind):
            wide = (part.astype(np.uint32) << 16).view(np.float32) if entry.kind == "BF16" else part.view(_type(entry))
            place = int(np.flatnonzero(~np.isfinite(wide))[0])
            return float(wide[place]), [int(each) for each in np.unravel_index(start + place, entry.shape)]
    return None


def _parts(file: Path, entry: Entry) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """The numbers of a tensor, a part at a time, each with its place; those of halves as bits."""
    kind = FLOATS.get(entry.kind) or ("<u2" if entry.kind in HALVES else None)
    count = math.prod(entry.shape)
    if kind is None or count == 0:
        return
    with file.open("rb") as content:
        content.seek(entry.start)
        for start in range(0, count, PART):
            yield start, np.fromfile(content, kind, min(PART, count - start))


def _are_finite(part: npt.NDArray[Any], kind: str) -> bool:
    if exponent := HALVES.get(kind):
        return int((part & exponent).max()) < exponent
    return bool(np.isfinite(part.min()) and np.isfinite(part.max()))  # Either is no number where one is none.


def _type(entry: Entry) -> str:
    return FLOATS.get(entry.kind, "<f2")
