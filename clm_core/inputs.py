"""What commands start from: the model and the prepared data that the options name."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from clm_core.adapters import Adapter, find_adapter, new_adapter
from clm_core.backend import Backend, Model
from clm_core.config import AUTO, EvaluateConfig, GenerateConfig, PrepareConfig, TrainConfig, named
from clm_core.counts import with_noun
from clm_core.data.fetching import fetch
from clm_core.data.manifest import TRAIN, VALIDATION, documents_read
from clm_core.data.preparation import Listener, Preparation, check_blocks
from clm_core.data.preparation import prepare as prepare_data
from clm_core.data.prepared import Prepared
from clm_core.data.taking import said
from clm_core.data.tokenization import digest_tokenizer
from clm_core.errors import BackendError, DataError, ModelError, OptionError
from clm_core.installation import install_extra
from clm_core.launch import mailbox
from clm_core.models.adapters.base import check_base
from clm_core.models.architectures import count_embeddings
from clm_core.models.configurations import changed, check_fits, described, new_architecture, resized
from clm_core.models.presence import is_gone
from clm_core.models.stored_file import commit_of
from clm_core.models.types_in_files import dtype_in_files
from clm_core.paths import in_command, is_path
from clm_core.record import model_faults, settings_faults
from clm_core.registry import backends_with, unmet
from clm_core.screen.progress import Progress

Using = TypeVar("Using", EvaluateConfig, GenerateConfig)

ADAPTERS = "lora_r"
"""The option that a backend without adapters does not support."""

WAYS = {
    TRAIN: "--train-file or --dataset-name",
    VALIDATION: "--validation-file, or a --validation-split-percentage above 0",
}
"""Where the documents of a split can come from."""


def check_undamaged(config: Any, progress: Progress) -> None:
    """Make sure that the model and the tokenizer, if they are of a run or a checkpoint, are as they were written.

    Which of the files that a person may edit are not, is said.

    Raises:
        ModelError: one is not.
    """
    names = [*named(config).values()]
    for name in dict.fromkeys([*names, *_bases(names)]):
        if damaged := model_faults(Path(name)):
            raise ModelError(
                f"{name} is damaged: {', '.join(damaged)}: use another checkpoint; `clm verify` shows which are whole. "
                "If you made the change yourself, use a copy of the model's files in another folder"
            )
        if edited := settings_faults(Path(name)):
            progress.say(f"{name} is not as the training wrote it, and is used as it is: {', '.join(edited)}")


def announce(config: Any, progress: Progress) -> None:
    """Report what is loaded from the Hub, which may take a while."""
    wanted = [name for name in named(config).values() if not is_path(name)]
    if wanted or getattr(config, "dataset_name", None):
        wanted += [config.dataset_name] if getattr(config, "dataset_name", None) else []
        progress.say(f"loading {', '.join(dict.fromkeys(wanted))} from the Hub")


def from_checkpoint(config: TrainConfig, checkpoint: Path, progress: Progress) -> TrainConfig:
    """The options with a checkpoint in place of what they name and is not there any more: it has it as well.

    The base of an adapter is not in its checkpoints.
    """
    kept = {"model_name_or_path"} if config.lora_r else set()
    gone = {option: name for option, name in named(config).items() if option not in kept and is_gone(name)}
    for value in sorted({*gone.values()}):
        progress.say(f"{value} is not there any more: what was read from it is read from {checkpoint}")
    instead: dict[str, Any] = dict.fromkeys(gone, str(checkpoint))
    return replace(config, **instead)


def model_to_train(
    config: TrainConfig, tokenizer: Any, progress: Progress, *, resume_from: Path | None = None
) -> Model:
    """The model that a training starts from, existing or new, and the adapter that is trained beside it.

    An adapter that resumes stays beside the weights that it began with, whatever its base on the Hub is now.
    """
    if config.model_name_or_path:
        model = _base(named_model(config, progress, seed=config.seed), config, resume_from)
        model = changed(model, config.config_overrides, progress.say) if config.config_overrides else model
        model = resized(model, tokenizer, progress.say) if config.resize_embeddings else model
    else:
        new_adapter(config, None, "main", None)
        if config.ignore_unused_weights:
            raise OptionError("ignore_unused_weights has no effect without model_name_or_path")
        architecture = new_architecture(config, tokenizer, progress.say)
        model = Model(name_or_path=None, revision="main", architecture=architecture, seed=config.seed)
    check_fits(model.architecture, tokenizer, config.block_size, new=model.name_or_path is None)
    return model


def named_model(config: TrainConfig | EvaluateConfig | GenerateConfig, progress: Progress, *, seed: int) -> Model:
    """The model at `model_name_or_path`, or the adapter there with its model."""
    return described(config, progress.say, seed=seed, ignore_unused_weights=config.ignore_unused_weights)


def with_dtype(config: Using, model: Model, progress: Progress) -> Using:
    """The options with the type that the weights are to have; `auto` is what the files of the model say.

    Raises:
        ModelError: there are no files that can be read.
    """
    if config.dtype != AUTO:
        return config
    found = dtype_in_files(model)
    progress.say(f"dtype auto: {found}, by the files of {model.name_or_path}")
    return replace(config, dtype=found)


def check_type(model: Model, backend: Backend) -> None:
    """Make sure, before any data is prepared, that a backend has a model for a configuration, and for its adapter.

    Raises:
        ModelError: it has none for this type; those that have one are named. Or it has no adapters.
        BackendError: what it needs for an adapter is not installed.
    """
    if model.adapter:
        _check_adapters(model.adapter, backend)
    kind = model.architecture.model_type
    if backend.has_model(kind) is False:
        others = backends_with(kind)
        instead = f"--backend {' or '.join(others)} has one" if others else "another backend may have one"
        raise ModelError(f"model type {kind}: backend {backend.name} has no model for it; {instead}")


def check_masks(prepared: Prepared, backend: Backend) -> None:
    """Make sure that a backend leaves out of its loss what does not count in prepared data.

    Raises:
        OptionError: it does not.
    """
    if not backend.masks and any(entry.mask for entry in prepared.manifest.splits.values()):
        raise OptionError(
            f"completion_only_loss: backend {backend.name} trains on all tokens of {prepared.folder}, of which some do "
            "not count: prepare it with --no-completion-only-loss, or use another backend"
        )


def prepared_for(
    config: TrainConfig | EvaluateConfig, model: Model, tokenizer: Any, progress: Progress, *, need: str
) -> Prepared:
    """Data for a command, with at least one block in the split that it needs, and in those that it would use."""
    if ready := mailbox.take(mailbox.PREPARED):  # By the process that started this one, which has verified it.
        prepared = open_whole(Path(ready))
    elif config.prepared:
        prepared = _open_prepared(fetch(config.prepared), tokenizer)
    else:
        prepared, _ = prepared_by(config, tokenizer, progress, None, once=True)
    if not prepared.has(need):
        raise DataError(f"there are no documents for {need}: give {WAYS[need]}")
    used = list(prepared.manifest.splits) if need == TRAIN else [need]
    check_blocks(prepared, config.block_size, used)
    _check_ids(prepared, model, used)
    return prepared


def prepared_by(
    config: TrainConfig | EvaluateConfig | PrepareConfig,
    tokenizer: Any,
    progress: Progress,
    folder: Path | None,
    *,
    once: bool = False,
) -> tuple[Prepared, bool]:
    """The data that the options describe, in this folder or the cache, and whether they were there already.

    Those that were are verified, if need be only `once`.
    """
    with progress.bar("preparing", None, "document") as bar:
        preparation = Preparation.make(config, tokenizer)
        if taken := preparation.sources.taken:
            progress.say(said(taken))
        prepared, reused = prepare_data(
            preparation,
            folder,
            workers=config.preprocessing_num_workers,
            overwrite=config.overwrite_cache,
            once=once,
            listener=Listener(advance=bar.advance, say=progress.say),
        )
    how = "using prepared data from the cache" if reused else "prepared"
    progress.say(prepared_line(prepared, config.block_size, how))
    return prepared, reused


def prepared_line(prepared: Prepared, block_size: int, how: str) -> str:
    """What was prepared, and how it came about, in a line."""
    ledger = prepared.ledger(block_size)
    documents = ledger["documents"]
    parts = [
        f"{split}: {with_noun(counts['documents'], 'document')}, "
        f"{with_noun(counts['tokens'] + counts['eos_added'], 'token')}, {with_noun(counts['blocks'], 'block')} of "
        f"{block_size}, {with_noun(counts['tokens_dropped'], 'token')} dropped{masked(counts)}"
        for split, counts in ledger["splits"].items()
    ]
    return f"{how}: {documents_read(documents)}; " + "; ".join(parts)


def masked(counts: dict[str, int]) -> str:
    """What does not count of a split, in words; nothing where all does."""
    if "masked" not in counts:
        return ""
    none = counts["blocks_masked"]
    left_out = f" with {with_noun(none, 'block')} in which none counts" if none else ""
    return f"{left_out}, {with_noun(counts['masked'], 'token')} of prompts masked"


def open_whole(folder: Path) -> Prepared:
    """Prepared data that is not a shard.

    Raises:
        DataError: there is none, or it is a shard.
    """
    prepared = Prepared.open(folder)
    if prepared.shard:
        raise DataError(f"{folder} is shard {prepared.shard} of the data: merge all shards with `clm prepare --merge`")
    return prepared


def _bases(names: Sequence[str]) -> list[str]:
    """The folders of the models that adapters among these belong to."""
    found = (find_adapter(name, "main") for name in names if Path(name).is_dir())
    return [adapter.base for adapter in found if adapter]


def _base(model: Model, config: TrainConfig, resume_from: Path | None) -> Model:
    """A model that is trained, or the base of an adapter that is."""
    name = config.model_name_or_path
    if model.adapter:
        quoted = in_command(str(name))
        raise OptionError(
            f"model_name_or_path {name} is an adapter of {model.name_or_path}: to train it further, resume its run "
            f"(--resume-from-checkpoint {quoted} with more --max-steps or --num-train-epochs); to train the model that "
            f"it makes, or another adapter of that, merge it first (clm merge-adapter {quoted} --output-dir DIR)"
        )
    revision = commit_of(str(name), model.revision) if config.lora_r else model.revision
    adapter = new_adapter(config, name, revision, model.architecture)
    if adapter is None:
        return model
    if resume_from and (saved := find_adapter(str(resume_from), "main")):
        if Path(saved.base).resolve() != Path(adapter.base).resolve():
            raise OptionError(
                f"model_name_or_path {name}: the adapter in {resume_from} is one of {saved.base}: leave this option out"
            )
        check_base(saved)
        adapter = replace(adapter, base_revision=saved.base_revision, base_files=saved.base_files)
    return replace(model, adapter=adapter, revision=adapter.base_revision)


def _check_adapters(adapter: Adapter, backend: Backend) -> None:
    if why := backend.unsupported.get(ADAPTERS):
        way = f"; clm merge-adapter {in_command(adapter.folder)} --output-dir DIR" if adapter.folder else ""
        raise ModelError(f"backend {backend.name} does not support {ADAPTERS}: {why}{way}")
    if missing := unmet(backend.needs_for_adapters):
        raise BackendError(f"{ADAPTERS}: backend {backend.name} needs {', '.join(missing)}: {install_extra('lora')}")


def _open_prepared(folder: Path, tokenizer: Any) -> Prepared:
    prepared = open_whole(folder)
    prepared.verify(once=True)
    if prepared.manifest.tokenizer != digest_tokenizer(tokenizer):
        raise ModelError(f"{folder} was prepared with a different tokenizer than the model's: prepare the data again")
    return prepared


def _check_ids(prepared: Prepared, model: Model, splits: Sequence[str]) -> None:
    """Make sure that every id in the data has an embedding."""
    rows = count_embeddings(model.architecture)
    largest = max(prepared.manifest.splits[split].largest_id for split in splits)
    if rows is not None and largest >= rows:
        raise ModelError(f"the data contains token id {largest}, but the model has only {with_noun(rows, 'embedding')}")
