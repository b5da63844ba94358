"""`clm verify`: check a run, a checkpoint or prepared data against the checksums in its record."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from clm_core import marker, record
from clm_core.backend.adapter import Adapter
from clm_core.commands import summary
from clm_core.commands.call import Call
from clm_core.data import manifest
from clm_core.data.prepared import Prepared
from clm_core.durable.checksums import Listed
from clm_core.errors import DataError, ModelError, OptionError, OutputError
from clm_core.models.adapters.base import base_faults
from clm_core.models.adapters.finding import adapter_beside_its_base, adapter_without_its_base
from clm_core.options.recorded import of_run
from clm_core.paths import in_command, likely
from clm_core.results import Kind, State, VerificationResult, VerifiedPart
from clm_core.screen.exit_codes import ExitCode
from clm_core.screen.progress import Progress

OF_A_RUN = (record.RESULTS_FILE, record.RUN_FILE, record.HISTORY_FILE)
OF_DATA = (manifest.MANIFEST, *(f"{split}.ends" for split in (manifest.TRAIN, manifest.VALIDATION)))
"""Files by which a folder is recognized, even if its record is missing."""


def run(call: Call) -> ExitCode:
    """Carry out the command line."""
    with call.progress() as progress:
        result = verify(call.folder, progress)
    call.print(result, lambda: summary.of_verification(result))
    if result.state == "damaged":
        return ExitCode.DIFFERENT
    return ExitCode.DONE if any(part.state == "whole" for part in result.parts) else ExitCode.INPUT


def verify(folder: Path, progress: Progress) -> VerificationResult:
    """Check every file of a run and of its checkpoints, of a checkpoint, or of prepared data.

    Raises:
        OptionError: the folder is none of them.
    """
    earlier = record.earlier_run(folder)
    looks = list(_looks(folder, earlier))
    parts = []
    with progress.bar("verifying", len(looks), "part") as bar:
        for look, path in looks:
            part = look(path)
            # A training that is running may have removed a checkpoint in the meantime.
            parts += [part] if os.path.lexists(path) or look is _gone else []
            bar.advance()
    return VerificationResult(
        folder=folder, kind=parts[0].kind, state=_state(parts), parts=tuple(parts), earlier=earlier
    )


def _state(parts: list[VerifiedPart]) -> State:
    """The state of the whole, from that of its parts, of which the run itself is the first."""
    states = [part.state for part in parts]
    if "damaged" in states or states[0] == "unfinished":
        return "damaged" if "damaged" in states else "unfinished"
    return "whole" if "whole" in states else "unproved"


def _looks(folder: Path, earlier: Path | None) -> Iterator[tuple[Callable[[Path], VerifiedPart], Path]]:
    """What to check, and how: the parts of a run, or what else is in the folder."""
    if earlier:
        yield _not_begun, folder
        if earlier.name.startswith(record.REPLACED):  # Else it is in two places.
            yield _run, earlier
            yield from ((_checkpoint, path) for path in marker.list_named(earlier))
    elif folder.is_dir() and record.is_checkpoint(folder):
        yield _checkpoint, folder
        yield from _bases([folder])
    elif _has(folder, *OF_DATA):
        yield _data, folder
    elif (found := marker.list_named(folder)) or _has(folder, *OF_A_RUN):
        yield _run, folder
        yield from ((_checkpoint, path) for path in found)
        yield from _bases([folder, *found])
    else:
        raise OptionError(_nothing(folder))


def _bases(folders: Sequence[Path]) -> Iterator[tuple[Callable[[Path], VerifiedPart], Path]]:
    """The base of the adapter in one of these folders, if it is a folder: with its sums, or gone."""
    if adapter := next(filter(None, map(adapter_beside_its_base, folders)), None):
        yield partial(_base, adapter), Path(adapter.base)
    elif adapter := next(filter(None, map(adapter_without_its_base, folders)), None):
        yield _gone, Path(adapter.base)


def _has(folder: Path, *names: str) -> bool:
    return any(os.path.lexists(folder / name) for name in names)


def _nothing(path: Path) -> str:
    if path.is_file():
        return f"{path} is a file: give the folder of a run, a checkpoint or prepared data, such as {path.parent}"
    if not path.is_dir():
        return f"there is no folder {path}{likely(str(path))}"
    return (
        f"there is nothing to verify in {path}: no {record.RESULTS_FILE} or {record.RUN_FILE} of a run, no "
        f"{marker.MARKER} of a checkpoint, and no {manifest.MANIFEST} of prepared data"
    )


def _run(folder: Path) -> VerifiedPart:
    """The files of a finished training, of which `results.json`, written last, has the sums."""
    if not _has(folder, record.RESULTS_FILE):
        unreadable = _unreadable(folder)
        state: State = "damaged" if unreadable else "unfinished"
        return VerifiedPart(kind="run", folder=folder, state=state, faults=unreadable)
    try:
        faults = [*_linked(folder, record.RESULTS_FILE), *record.faults(folder)]
    except OutputError as error:
        return _part("run", folder, [_without(error, folder)])
    return _part("run", folder, faults, record.read_results(folder).get(marker.FILES))


def _unreadable(run: Path) -> tuple[str, ...]:
    """Whether the options of a run that is not finished, of which there are no sums, are of no use to resume it."""
    if not (run / record.RUN_FILE).is_file():
        return (f"{record.RUN_FILE} is {'not a file' if _has(run, record.RUN_FILE) else 'missing'}",)
    try:
        found = of_run(run)
    except OptionError as error:
        return (_without(error, run),)
    return (*_linked(run, record.RUN_FILE), *(() if found else (f"{record.RUN_FILE} is empty",)))


def _not_begun(folder: Path) -> VerifiedPart:
    """A run that has made no step, beside the one that it was to replace."""
    return VerifiedPart(kind="run", folder=folder, state="unfinished")


def _checkpoint(folder: Path) -> VerifiedPart:
    if folder.is_symlink() and not folder.exists():
        return _part("checkpoint", folder, [f"it is a link to {folder.readlink()}, which is not there"])
    if not _has(folder, marker.MARKER):
        return _part("checkpoint", folder, [f"{marker.MARKER} is missing: it is not complete, and is never used"])
    faults = [*_linked(folder, marker.MARKER), *marker.faults(folder)]
    return _part("checkpoint", folder, faults, None if faults else marker.read(folder).get(marker.FILES))


def _base(adapter: Adapter, folder: Path) -> VerifiedPart:
    try:
        faults = base_faults(adapter)
    except ModelError as error:
        return _part("base of an adapter", folder, [_without(error, folder)])
    beside = [f"{fault} since the adapter in {adapter.folder} was trained beside it" for fault in faults]
    return _part("base of an adapter", folder, beside, None if faults else dict(adapter.base_files or {}))


def _gone(folder: Path) -> VerifiedPart:
    way = f"put it back, or make a link to where it is now (ln -s NEW-PLACE {in_command(folder)})"
    return _part("base of an adapter", folder, [f"it is not there any more: {way}"])


def _data(folder: Path) -> VerifiedPart:
    if not _has(folder, manifest.MANIFEST):
        return _part("prepared data", folder, [f"{manifest.MANIFEST} is missing"])
    try:
        prepared = Prepared(folder=folder, manifest=manifest.read_manifest(folder))
    except DataError as error:
        return _part("prepared data", folder, [_without(error, folder).removesuffix(f": {manifest.AGAIN}")])
    return _part("prepared data", folder, prepared.faults(), prepared.manifest.files)


def _linked(folder: Path, name: str) -> list[str]:
    """A record that is a link; what it lists says so of itself."""
    return [f"{name} is a link, not the file that was written"] if (folder / name).is_symlink() else []


def _without(error: Exception, folder: Path) -> str:
    """An error about a file of a folder that is named already."""
    return str(error).removeprefix(f"{folder}{os.sep}").removeprefix(f"{folder} ")


def _part(kind: Kind, folder: Path, faults: list[str], listed: Listed | None = None) -> VerifiedPart:
    if faults:
        return VerifiedPart(kind=kind, folder=folder, state="damaged", faults=tuple(faults))
    if not listed:
        return VerifiedPart(kind=kind, folder=folder, state="unproved")
    size = sum(entry["size"] for entry in listed.values())
    return VerifiedPart(kind=kind, folder=folder, state="whole", files=len(listed), bytes=size)
