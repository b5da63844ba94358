"""Uploads a folder that is finished, a run or prepared data, or resumes its upload."""

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path
from typing import Any

from clm_core import durable
from clm_core.config import PrepareConfig, PushConfig
from clm_core.counts import with_noun
from clm_core.data.manifest import MANIFEST
from clm_core.data.prepared import PUBLICATION, Prepared
from clm_core.durable.disk_errors import writing
from clm_core.errors import ClmError, OptionError, OutputError
from clm_core.hub import account, prepared_data, run_files
from clm_core.hub.account import DatasetFacts, Hub, Repository
from clm_core.hub.card import set_license, write_card
from clm_core.hub.upload import refuse_link, upload
from clm_core.models.adapters.base import check_base
from clm_core.models.adapters.finding import adapter_beside_its_base
from clm_core.options import to_flags
from clm_core.paths import in_command, in_shell
from clm_core.record import (
    CARD,
    RESULTS_FILE,
    RUN_FILE,
    Record,
    have_changed,
    history_faults,
    model_faults,
    read_options,
    read_results,
    write_results,
)
from clm_core.results import Publication, TrainingResult
from clm_core.screen.endings import of_run
from clm_core.screen.progress import Progress


def push(run: Path, config: PushConfig, progress: Progress) -> Publication:
    """Make a repository equal to a finished run or to prepared data, continuing an upload that stopped.

    A failed upload raises nothing; its `state` says so.

    Raises:
        OptionError: an option belongs to the other of the two.
        OutputError: the folder does not contain a finished run, or what names the upload is a link.
    """
    if (run / MANIFEST).is_file():
        if config.hub_model_id:
            raise OptionError(f"hub_model_id {config.hub_model_id}: {run} contains prepared data: give hub_dataset_id")
        return push_data(Prepared.open(run), _with_names_of(run, config), progress)
    if config.hub_dataset_id:
        raise OptionError(f"hub_dataset_id {config.hub_dataset_id}: {run} contains no prepared data: give hub_model_id")
    results, options = _record(run)
    if damaged := [RESULTS_FILE] if have_changed(results) else [*model_faults(run), *history_faults(run, results)]:
        raise OutputError(f"{run} is damaged: {', '.join(damaged)}: nothing is uploaded (see `clm verify`)")
    if adapter := adapter_beside_its_base(run):
        check_base(adapter)
    earlier = results.get("hub") or {}
    repository = Repository(
        id=config.hub_model_id or earlier.get("repository") or options.get("hub_model_id") or name_of(run),
        kind=account.MODEL,
        revision=config.hub_revision or earlier.get("revision") or options.get("hub_revision") or "main",
        private=options.get("hub_private_repo") if config.hub_private_repo is None else config.hub_private_repo,
    )
    own: dict[str, Any] = {"hub_private_repo": config.hub_private_repo, "hub_license": config.hub_license}
    waiting = queued(run, repository.id, repository.revision, **own)
    try:
        _write_outcome(run, results, waiting)  # Should this process be killed.
    except OutputError as error:
        return replace(waiting, state="failed", error=str(error))
    done = push_run(run, repository, progress, **own)
    with contextlib.suppress(OutputError):  # A disk that is full keeps what was written before.
        _write_outcome(run, results, done)
    return done


def queued(folder: Path, repository: str, revision: str | None, **own: Any) -> Publication:
    """An upload that is still to come, with the command for it, which has what is its `own`: see `push_run`."""
    command = command_for(folder, **own)
    return Publication(repository=repository, revision=revision or "main", state="queued", command=command)


def push_run(
    run: Path, repository: Repository, progress: Progress, connected: Hub | None = None, **own: Any
) -> Publication:
    """Upload a run that is on disk; writes the card if there is none, with `hub_license` if that is given.

    `own` are the options of this upload that the run does not record; None is not given. A failed upload raises
    nothing. The caller writes the outcome into the results of the run.
    """
    try:
        with of_run(run):
            hub = connected or Hub.connect(progress.say)
            return _uploaded(run, repository, progress, hub, own.get("hub_license"))
    except (ClmError, OSError) as error:
        return replace(queued(run, repository.id, repository.revision, **own), state="failed", error=str(error))
    except KeyboardInterrupt:
        progress.say(f"not uploaded; the run is on disk: {command_for(run, **own)}")
        raise


def push_data(prepared: Prepared, config: PushConfig, progress: Progress) -> Publication:
    """Publish prepared data as a dataset."""
    name = config.hub_dataset_id or name_of(prepared.folder)
    outcome = Publication(repository=name, revision=config.hub_revision or "main", state="failed")
    command = command_for(prepared.folder, **{"hub_dataset_id": name} | asdict(replace(config, hub_dataset_id=name)))
    try:
        prepared_data.check_no_links(prepared)
        prepared.verify()
        hub = Hub.connect(progress.say)
        repository = _data_repository(config, prepared.folder, hub)
        progress.say(f"uploading {prepared.folder} to the dataset {repository.id}")
        files = prepared_data.files(prepared, repository.id, license=config.hub_license)
        done = upload(hub, repository, files, owned=prepared_data.is_ours, message="Upload data prepared with clm")
    except (ClmError, OSError) as error:
        return replace(outcome, error=str(error), command=command)
    except KeyboardInterrupt:
        progress.say(f"not uploaded; the data is on disk: {command}")
        raise
    return replace(outcome, repository=repository.id, state="uploaded", url=done.url, commit=done.commit)


def data_publisher(config: PrepareConfig, progress: Progress) -> Callable[[Prepared], Publication | None]:
    """The publisher of prepared data, by the options; checks your login and write access at once.

    Raises:
        OptionError: the options contradict each other, or give no name.
        HubError: nobody is logged in, may not write there, or the Hub cannot be reached.
    """
    names = ("hub_dataset_id", "hub_private_repo", "hub_revision", "hub_license")
    given = [name for name in names if getattr(config, name) is not None]
    if not config.push_to_hub and not given:
        return lambda prepared: None
    name = config.hub_dataset_id or (config.output_dir and name_of(Path(config.output_dir)))
    if config.shard or (config.push_to_hub and not name):
        why = (
            "one shard of the data is not a dataset: merge the shards first"
            if config.shard
            else "give hub_dataset_id, or output_dir"
        )
        raise OptionError(f"{'push_to_hub' if config.push_to_hub else given[0]}: {why}")
    wanted = PushConfig(**{name: getattr(config, name) for name in names} | {"hub_dataset_id": name})
    if not config.push_to_hub:
        return lambda prepared: _queued(prepared, wanted)
    hub = Hub.connect(progress.say)
    hub.make(_data_repository(wanted, Path(name or ""), hub))
    return lambda prepared: push_data(prepared, wanted, progress)


def name_of(folder: Path) -> str:
    """The default name of a repository: that of the folder."""
    return folder.resolve().name


def command_for(folder: Path, **given: Any) -> str:
    """The command that uploads it, with the options that are not None."""
    flags = to_flags({name: value for name, value in given.items() if value is not None})
    return " ".join(["clm push", in_command(folder), *map(in_shell, flags)])


def _queued(prepared: Prepared, wanted: PushConfig) -> Publication:
    """Store where to publish prepared data, for `clm push`."""
    names = {name: value for name, value in asdict(wanted).items() if value is not None}
    with writing(prepared.folder / PUBLICATION):
        durable.replace(prepared.folder / PUBLICATION, json.dumps(names, indent=2) + "\n")
    return queued(prepared.folder, wanted.hub_dataset_id or name_of(prepared.folder), wanted.hub_revision)


def _with_names_of(folder: Path, config: PushConfig) -> PushConfig:
    """The options of an upload; what is not given is as given when the data was prepared."""
    file = folder / PUBLICATION
    refuse_link(file)
    if not file.is_file():
        return config
    try:
        kept = dict(json.loads(file.read_text(encoding="utf-8")))
        return replace(config, **{name: value for name, value in kept.items() if getattr(config, name) is None})
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise OutputError(f"{file} is damaged ({error}): remove it, and give --hub-dataset-id") from None


def _write_outcome(run: Path, results: Record, publication: Publication) -> None:
    """Write the results of a run with the outcome of its upload."""
    try:
        write_results(run, results | {"hub": asdict(publication)})
    except OSError as error:
        raise OutputError(f"cannot write {run / RESULTS_FILE}: {error.strerror}") from error


def _record(run: Path) -> tuple[Record, Record]:
    """The results and the options of a finished run, of which parts are uploaded."""
    for name in (RESULTS_FILE, RUN_FILE):
        refuse_link(run / name)
    results = read_results(run)
    needed = (each.name for each in fields(TrainingResult) if each.default is MISSING)
    if lacking := [name for name in needed if name not in results]:
        raise OutputError(f"{run / RESULTS_FILE} is not complete: it has no {', '.join(lacking)}")
    return results, read_options(run)


def _uploaded(run: Path, repository: Repository, progress: Progress, hub: Hub, license: str | None) -> Publication:
    repository = replace(repository, id=hub.full_name(repository.id))
    results, options = _record(run)
    if not os.path.lexists(run / CARD):
        dataset = options.get("dataset_name")
        known = account.dataset_facts(dataset, options.get("revision")) if dataset else DatasetFacts()
        write_card(run, repository.id, data=known, license=license)
    elif license:
        refuse_link(run / CARD)
        set_license(run, license)
    progress.say(f"uploading {run} to {repository.id}")
    message = f"Upload a model trained with clm, {with_noun(results['steps'], 'step')}"
    files = run_files.of_run(run, results, options)
    done = upload(hub, repository, files, owned=run_files.is_ours, message=message)
    return Publication(
        repository=repository.id, revision=repository.revision, state="uploaded", url=done.url, commit=done.commit
    )


def _data_repository(config: PushConfig, folder: Path, hub: Hub) -> Repository:
    return Repository(
        id=hub.full_name(config.hub_dataset_id or name_of(folder)),
        kind=account.DATASET,
        revision=config.hub_revision or "main",
        private=config.hub_private_repo,
    )
