"""The files of a run: their names, which of them are shared, and options and results, written and read back."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from clm_core.backend.adapter import BASE, CONFIG
from clm_core.durable import checksums, read, replace, sync_file
from clm_core.durable.disk_errors import writing
from clm_core.errors import OutputError
from clm_core.marker import FILES, MARKER, NAME, list_named
from clm_core.paths import CONFIGURATION, GENERATION_CONFIG
from clm_core.screen.endings import ERROR_LOG

RUN_FILE = "run.yaml"
"""The options of the run, as a configuration file."""

RESULTS_FILE = "results.json"
ADAPTER, ADAPTER_BASE = CONFIG, BASE
HISTORY_FILE = "history.jsonl"
CARD = "README.md"
CURVE = "losses.png"
LOGS = "logs"
UPLOADING = ".upload-"
"""Prefix of the name of a folder that holds a checkpoint during its upload."""

REPLACING, REPLACED = ".replacing-", ".replaced-"
"""Prefixes of a folder in a run's: an earlier run is being moved there, or all of it waits there for the first step."""

MEASURED = ("tokens_per_second", "mfu", "peak_memory_bytes")
"""What a line of the history has that is another each time, though the training is the same."""

WRITTEN = {
    *(RUN_FILE, RESULTS_FILE, HISTORY_FILE, CONFIGURATION, GENERATION_CONFIG, "tokenizer.json", "vocab.json"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", "vocab.txt"),
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja", CARD, CURVE, ERROR_LOG),
    *(ADAPTER, ADAPTER_BASE),
}
"""The names of the files that a run writes, besides weights."""

SETTINGS = (GENERATION_CONFIG, "chat_template.jinja")
"""Files beside a model that a person may edit: how to generate and to chat with it, not what it computes."""

Record = dict[str, Any]


def read_results(run: Path) -> Record:
    """The results in the record of a finished run.

    Raises:
        OutputError: it has written nothing, or nothing that can be read.
    """
    return _read(run, RESULTS_FILE)


def write_results(run: Path, results: Record) -> None:
    """Write the results of a finished run, last: with the sums of its other files, by which it proves to be whole.

    Results that were read and have the sums already keep them.

    Raises:
        DiskError: the disk does not take them.
        OSError: a file of the run cannot be read.
    """
    text = ""
    with writing(run / RESULTS_FILE, needs=lambda: len(text)):
        listed = results.get(FILES) or checksums.list_files(run, _proved(run), each=sync_file)
        sealed = checksums.seal({**without_sums(results), FILES: listed})
        text = json.dumps(sealed, indent=2, allow_nan=False) + "\n"
        replace(run / RESULTS_FILE, text)


def without_sums(results: Record) -> Record:
    """The results without what proves the files, which differ where the run is uploaded."""
    return {name: value for name, value in results.items() if name not in (FILES, checksums.SEAL)}


def faults(run: Path) -> list[str]:
    """What is damaged in a finished run, a line for each file; nothing if all is as it was written, or has no sums.

    Raises:
        OutputError: it is not finished, or its results cannot be read.
    """
    results = read_results(run)
    if have_changed(results):
        return [f"{RESULTS_FILE} has changed since it was written"]
    if FILES in results:
        return [*_unlisted(run, results[FILES]), *checksums.faults(run, results[FILES])]
    return [] if any(is_weights(path.name) for path in run.iterdir()) else ["model.safetensors is missing"]


def have_changed(results: Record) -> bool:
    """Whether results with sums are not as they were written; those of an earlier clm have none and do not tell."""
    return bool({FILES, checksums.SEAL} & results.keys()) and not checksums.is_sealed(results)


def model_faults(folder: Path) -> list[str]:
    """What is damaged of the weights, the configuration and the tokenizer in the folder of a run or a checkpoint.

    A line for each file; nothing if the folder has no sums, or is none of both. A link is as good as the file that it
    leads to.
    """
    if (listed := _listed(folder)) is not None:
        model = {file: sums for file, sums in listed.items() if _is_of_model(file)}
        return checksums.faults(folder, model, links=True)
    is_torn = is_checkpoint(folder) and (folder / RUN_FILE).is_file() and not (folder / MARKER).is_file()
    return [f"it has no {MARKER}"] if is_torn else []


def settings_faults(folder: Path) -> list[str]:
    """What is changed of the `SETTINGS` beside a model, which a person may have meant; as `model_faults` has it."""
    listed = _listed(folder) or {}
    return checksums.faults(folder, {file: listed[file] for file in SETTINGS if file in listed}, links=True)


def history_faults(run: Path, results: Record) -> list[str]:
    """What is damaged of the history of a finished run, as `model_faults` has it of the model."""
    listed = {name: sums for name, sums in results.get(FILES, {}).items() if name == HISTORY_FILE}
    return checksums.faults(run, listed, links=True)


def read_configuration(run: Path) -> Record:
    """The configuration of the model of a finished run.

    Raises:
        OutputError: it has none, or one that cannot be read.
    """
    return _read(run, CONFIGURATION)


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint, complete or not; a run may have the name of one."""
    if os.path.lexists(folder / MARKER):
        return True
    is_run = (folder / RESULTS_FILE).is_file() or bool(list_named(folder))
    return bool(NAME.fullmatch(folder.absolute().name)) and not is_run


def earlier_run(run: Path) -> Path | None:
    """The folder in a run's that has the run which was to be replaced, until the new one has made a step.

    The next training there moves it back, if none is at work.
    """
    found = sorted(run.glob(f"{REPLACED}*")) + sorted(run.glob(f"{REPLACING}*"))
    return next((path for path in found if path.is_dir() and not path.is_symlink()), None)


def read_options(run: Path) -> Record:
    """The options of a run from its file; of a local path, the last name only.

    Raises:
        OutputError: the file cannot be read.
    """
    import yaml

    try:
        found = dict(yaml.safe_load(read(run / RUN_FILE)) or {})
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise OutputError(f"{run / RUN_FILE} cannot be read: {error}") from None
    return without_folders(found)


def without_folders(options: Record) -> Record:
    """Options as they may be shared: of a local path, the last name only."""
    return {name: _without_folder(value) for name, value in options.items()}


def shared_files(folder: Path) -> list[Path]:
    """The files of a run, or of a checkpoint, that are worth sharing: the model, its tokenizer and their record.

    Links are not among them: what they lead to may be anything on this machine.
    """
    return [path for path in shared_names(folder) if not path.is_symlink()]


def shared_names(folder: Path) -> list[Path]:
    """The same, and the links in place of such files."""
    found = [path for path in sorted(folder.iterdir()) if is_shared(path.name)]
    return [path for path in found if path.is_file() or path.is_symlink()]


def is_shared(name: str) -> bool:
    """Whether a file of this name is the model's, its tokenizer's or their record; not the state of an optimizer."""
    return name in WRITTEN - {ERROR_LOG} or is_weights(name)


def is_weights(name: str) -> bool:
    """Whether a file of this name has the weights of a model or an adapter, or lists the files that do."""
    return name.startswith(("model", "adapter_model")) and ".safetensors" in Path(name).suffixes


def stays(name: str) -> bool:
    """Whether a file of this name stays as the training wrote it; the results do not, nor need a card."""
    return is_shared(name) and name not in (RESULTS_FILE, CARD, CURVE)


def files_of_model(folder: Path) -> list[Path]:
    """The files of a checkpoint that are the model's, its settings' and its tokenizer's: all that a run has of it."""
    own = {RUN_FILE, RESULTS_FILE, HISTORY_FILE, CARD, CURVE}
    return [path for path in shared_files(folder) if path.name not in own]


def _listed(folder: Path) -> dict[str, Any] | None:
    """The sums of the files of a run or a checkpoint; None if the folder is none of both, or has none."""
    for name in (MARKER, RESULTS_FILE):
        with suppress(OSError, ValueError):  # Other programs may have a file of this name, too.
            found = checksums.read_record(folder / name)
            if checksums.is_sealed(found) and isinstance(found.get(FILES), dict):
                listed: dict[str, Any] = found[FILES]
                return listed
    return None


def _is_of_model(name: str) -> bool:
    return is_shared(name) and name not in {RUN_FILE, RESULTS_FILE, HISTORY_FILE, CARD, CURVE, *SETTINGS}


def _unlisted(run: Path, listed: Any) -> list[str]:
    """What every run has and this one lacks, though its results do not list it: an earlier clm did not look for it."""
    names = [name for name in (RUN_FILE, HISTORY_FILE) if not isinstance(listed, dict) or name not in listed]
    return [f"{name} is missing" for name in names if not (run / name).exists()]


def _proved(run: Path) -> list[str]:
    """The files that the results prove."""
    return [path.name for path in shared_files(run) if stays(path.name)]


def _read(run: Path, name: str) -> Record:
    try:
        return checksums.read_record(run / name)
    except FileNotFoundError:
        why = f"it has no {name}" if run.is_dir() else "there is no such folder"
        raise OutputError(f"{run} is not a finished run: {why}") from None
    except (OSError, ValueError) as error:
        raise OutputError(f"{run / name} cannot be read: {error}") from None


def _without_folder(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_folder(item) for item in value]
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value  # noqa: PTH117
