"""Which files of a run are uploaded, without paths of this machine."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from clm_core.checkpoints import NAME
from clm_core.durable import checksums
from clm_core.hub.card import training_options
from clm_core.hub.upload import Files
from clm_core.marker import FILES, MARKER
from clm_core.record import (
    ADAPTER,
    HISTORY_FILE,
    RESULTS_FILE,
    RUN_FILE,
    Record,
    is_shared,
    read_options,
    shared_names,
    without_sums,
)

LAST = "last-checkpoint"
"""The folder of the last checkpoint in a repository, for strategy `checkpoint`; Trainer calls it so, too."""

SECRET = "training_args.bin"
"""A file with a token that other programs leave in a checkpoint; it is never uploaded."""

OF_THIS_MACHINE = ("output_dir", "checkpoint", "hub")
"""The entries of the results with local paths, and the one of the upload."""


def of_run(run: Path, results: Record, options: Record) -> Files:
    """The files of a finished run for a repository, as the run's options say."""
    files: dict[str, Path | bytes] = {path.name: path for path in shared_names(run)}
    files |= _adapter_file(run)
    files |= {RUN_FILE: _run_file(options), RESULTS_FILE: _results_file(results)}
    checkpoint = Path(results["checkpoint"] or "").name
    if options.get("hub_strategy") == "checkpoint" and NAME.fullmatch(checkpoint):  # Such as `..` is none of the run's.
        files |= _whole(run / checkpoint)
    return files


def of_checkpoint(checkpoint: Path, *, with_state: bool) -> Files:
    """The files of a run in training for a repository: a checkpoint, and what resuming needs."""
    run = checkpoint.parent
    files: dict[str, Path | bytes] = {path.name: path for path in shared_names(checkpoint)}
    files |= _adapter_file(checkpoint)
    history = run / HISTORY_FILE
    # Read at once, as the training continues and adds to it.
    files |= {RUN_FILE: _run_file(read_options(run)), HISTORY_FILE: _content(history)}
    return {**files, **(_whole(checkpoint) if with_state else {})}


def is_ours(path: str) -> bool:
    """Whether a file of a repository belongs to a run; one that this run does not have is from an earlier one."""
    return path.startswith(f"{LAST}/") or ("/" not in path and is_shared(path))


def _whole(checkpoint: Path) -> Files:
    if checkpoint.is_symlink():
        return {LAST: checkpoint}
    files = checkpoint.iterdir() if checkpoint.is_dir() else ()
    found: dict[str, Path | bytes] = {path.name: path for path in files if _is_offered(path)}
    if changed := _adapter_file(checkpoint):
        found |= changed | {MARKER: _marker_with(checkpoint, changed)}
    return {f"{LAST}/{name}": content for name, content in found.items()}


def _adapter_file(folder: Path) -> dict[str, bytes]:
    """The configuration of an adapter of which the base is a folder here, with its name alone; nothing of another."""
    file = folder / ADAPTER
    if not file.is_file() or file.is_symlink():
        return {}
    fields = json.loads(file.read_text(encoding="utf-8"))
    base = fields["base_model_name_or_path"]
    if not os.path.isabs(base):  # noqa: PTH117  (it may be a name)
        return {}
    return {ADAPTER: (json.dumps({**fields, "base_model_name_or_path": Path(base).name}, indent=2) + "\n").encode()}


def _marker_with(checkpoint: Path, changed: Mapping[str, bytes]) -> bytes:
    """The marker of a checkpoint in which some files are others."""
    record = checksums.read_record(checkpoint / MARKER)
    sums = {name: checksums.of_bytes(content) for name, content in changed.items()}
    sealed = checksums.seal({**record, FILES: {**record.get(FILES, {}), **sums}})
    return json.dumps(sealed, indent=2).encode()


def _is_offered(path: Path) -> bool:
    return path.name != SECRET and (path.is_file() or path.is_symlink())


def _content(file: Path) -> Path | bytes:
    """What a file has now; a link as it is."""
    return file if file.is_symlink() else file.read_bytes()


def _run_file(options: Record) -> bytes:
    """The options of a run, without local paths and without where it was published."""
    import yaml

    text: str = yaml.safe_dump(training_options(options), sort_keys=False, allow_unicode=True)
    return text.encode()


def _results_file(results: Record) -> bytes:
    shared = {name: value for name, value in without_sums(results).items() if name not in OF_THIS_MACHINE}
    return (json.dumps(shared, indent=2) + "\n").encode()
