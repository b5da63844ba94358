"""The marker of a checkpoint, written last: that it is whole, at which step, by which backend, on which blocks."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clm_core.durable import replace
from clm_core.errors import ModelError

MARKER = "checkpoint.json"


def mark(checkpoint: Path, *, step: int, backend: str, identity: Mapping[str, int | str]) -> None:
    """Say that a checkpoint is whole."""
    replace(checkpoint / MARKER, json.dumps({"step": step, "backend": backend, **identity}, indent=2))


def backend_of(checkpoint: Path) -> str:
    """The name of the backend that wrote a complete checkpoint.

    Raises:
        ModelError: its marker cannot be read.
    """
    name: str = read(checkpoint)["backend"]
    return name


def step_of(checkpoint: Path) -> int:
    """The step at which a complete checkpoint was written.

    Raises:
        ModelError: its marker cannot be read.
    """
    step: int = read(checkpoint)["step"]
    return step


def read(checkpoint: Path) -> dict[str, Any]:
    """What the marker of a whole checkpoint says.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        record = dict(json.loads((checkpoint / MARKER).read_text(encoding="utf-8")))
        # Those of an earlier clm, which always dropped nothing, have the two factors of a step.
        factors = [record.get(name) for name in ("per_device_train_batch_size", "gradient_accumulation_steps")]
        earlier = {"dataloader_drop_last": False, "train_batch_size": math.prod(filter(None, factors))}
        return {**earlier, **record, "step": int(record["step"]), "backend": str(record["backend"])}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{checkpoint / MARKER} is damaged ({error}): use another checkpoint") from None
