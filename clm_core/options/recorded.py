"""The options of an earlier run, as its folder has them."""

import os
from pathlib import Path

from clm_core import checkpoints, options
from clm_core.errors import OptionError
from clm_core.options import Given
from clm_core.options.layers import DATA, Layers
from clm_core.record import RUN_FILE, earlier_run

REPEAT = "repeat the command that started the run, with --resume-from-checkpoint auto"
"""How to resume a run whose options cannot be read."""


def of_run(run: Path) -> dict[str, Given]:
    """The options of a run, if the folder is one."""
    return options.from_file(run / RUN_FILE) if (run / RUN_FILE).is_file() else {}


def of_resumed(given: Given, layers: Layers) -> dict[str, Given]:
    """The options of the run that is named to be resumed, or of its checkpoint, with its folder as the output folder.

    A checkpoint that was moved out of its run has the options itself.

    Raises:
        OptionError: the run has none, and no data is named.
        ModelError: there is no run, and no checkpoint.
    """
    path = Path(given.value)
    run = checkpoints.run_of(path) if (path / checkpoints.MARKER).is_file() else path
    # A run that a killed process was to replace is put back, with its own options.
    recorded = next((place for place in (earlier_run(run), run) if place and (place / RUN_FILE).is_file()), path)
    if not (recorded / RUN_FILE).is_file():
        checkpoints.find(path)
        if not layers.has_one_of(DATA):
            raise OptionError(f"{given.place}: {run} has no {RUN_FILE}, where its options were: {REPEAT}")
    try:
        options_of_run = of_run(recorded)
    except OptionError as error:
        raise OptionError(f"{error}; {REPEAT}") from None
    if not options_of_run and not layers.has_one_of(DATA) and (recorded / RUN_FILE).stat().st_size == 0:
        raise OptionError(f"{recorded / RUN_FILE} is empty: {REPEAT}")
    found = {**options_of_run, "output_dir": Given(str(run), given.place)}
    if "LOCAL_RANK" in os.environ:  # Whoever started this process says how many there are, whatever the run had.
        found.pop("nproc_per_node", None)
    return found
