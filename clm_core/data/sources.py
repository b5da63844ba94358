"""Finds the documents: a dataset on the Hub, local files or the built-in sample; and which are held out.

The split is by document, before anything is cut into blocks, and is decided document by document from
the seed alone, so that it needs no second pass and does not depend on how the documents are read.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from clm_core import sample
from clm_core.config import DataOptions
from clm_core.data.columns import arrow_texts, check_column, row_text
from clm_core.data.readers import files
from clm_core.data.readers.opening import File, kind
from clm_core.errors import DataError, OptionError, first_line

FILES = ("train_file", "validation_file")
OF_HUB = ("dataset_config_name", "revision", "dataset_split", "streaming")
"""The options that apply only to a dataset on the Hub."""
OF_KINDS = {
    "sample_by": files.TEXT,
    "json_field": files.JSON,
    "csv_delimiter": files.CSV,
    "encoding": (*files.TEXT, *files.JSON, *files.CSV),
}
"""Those that apply only to some kinds of files."""

SLICE = 1000
"""Rows read from Arrow at a time."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A sequence of documents that can be read again and again, and a name for its content."""

    name: str
    fingerprint: str
    """Changes when the documents do; SHA-256 of the content, or the identity of a dataset on the Hub."""
    documents: Callable[[], Iterator[str | None]]


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The documents to train and evaluate on; if `validation` is None, some of the former are held out."""

    train: Source | None
    validation: Source | None
    held_out_percentage: int
    streaming: bool = False
    """Whether the documents come over the network while they are read, so that reading more has a cost."""


def open_sources(options: DataOptions) -> Sources:
    """Find the data that the options name.

    Raises:
        OptionError: the options name two kinds of data.
        DataError: the data cannot be found or read.
    """
    _check_together(options)
    if options.dataset_name:
        return _from_hub(options)
    if options.train_file or options.validation_file:
        return _from_files(options)
    train = _sample_source(options)
    return Sources(train=train, validation=None, held_out_percentage=options.validation_split_percentage)


def check_sources(options: DataOptions) -> None:
    """Check the names and kinds of files, and the content of the first, before anything slow starts.

    Raises:
        OptionError: the options name two kinds of data, or one does not apply to this data.
        DataError: a file does not exist, is of an unsupported kind, or has no such column.
    """
    _check_together(options)
    if options.dataset_name:
        return
    layout = _layout(options)
    if not (options.train_file or options.validation_file):
        _sample_source(options)
        return
    for found in _named_files(options).values():
        for file in found[:1]:
            files.check(file, layout)


def is_held_out(document: int, *, seed: int, percentage: int) -> bool:
    """Whether the document of this number goes to the validation split.

    The documents fall into groups of 100 / percentage in a row, and of each group one is drawn at random, so
    that the share is exact to one document wherever the documents end.
    """
    if percentage > 50:
        return not is_held_out(document, seed=seed, percentage=100 - percentage)
    if not percentage:
        return False
    group = document * percentage // 100
    first, end = (-(-100 * number // percentage) for number in (group, group + 1))
    return document - first == _drawn(seed, group, end - first)


@lru_cache(maxsize=4)
def _drawn(seed: int, group: int, size: int) -> int:
    return min(
        range(size), key=lambda index: hashlib.blake2b(f"{seed} {group} {index}".encode(), digest_size=8).digest()
    )


def _check_together(options: DataOptions) -> None:
    """Reject options that contradict each other, or do not apply to this data."""
    by_file = any(getattr(options, name) for name in FILES)
    if options.dataset_name and by_file:
        raise OptionError("dataset_name cannot be combined with train_file or validation_file: give one of them")
    for option in fields(DataOptions):
        value = getattr(options, option.name)
        if value == option.default:
            continue
        if option.name in OF_HUB and not options.dataset_name:
            raise OptionError(f"{option.name} {value!r} has no effect without dataset_name")
        if option.name in OF_KINDS and not by_file:
            raise OptionError(f"{option.name} {value!r} has no effect without train_file")


def _named_files(options: DataOptions) -> dict[str, list[File]]:
    """The files of each option, of kinds that the other options say something about."""
    found = {name: files.expand(name, getattr(options, name)) for name in FILES}
    kinds = {kind(file) for name in FILES for file in found[name]}
    if kinds == {*files.TEXT} and options.text_column != "text":
        raise OptionError(f"text_column {options.text_column!r}: .txt files have no columns, leave it out")
    layout = files.Layout(text_column=options.text_column)
    for name, known in OF_KINDS.items():
        if getattr(options, name) != getattr(layout, name) and not kinds & {*known}:
            raise OptionError(f"{name} {getattr(options, name)} is for {', '.join(known)} files, and none is given")
    return found


def _from_files(options: DataOptions) -> Sources:
    found = _named_files(options)
    train, validation = (_file_source(name, found[name], options) for name in FILES)
    return Sources(train=train, validation=validation, held_out_percentage=_percentage(options, validation))


def _layout(options: DataOptions) -> files.Layout:
    return files.Layout(**{field.name: getattr(options, field.name) for field in fields(files.Layout)})


def _percentage(options: DataOptions, validation: Source | None) -> int:
    return 0 if validation else options.validation_split_percentage


def _file_source(option: str, found: list[File], options: DataOptions) -> Source | None:
    if not found:
        return None
    layout = _layout(options)
    return Source(
        name=f"{option} {', '.join(getattr(options, option))}",
        fingerprint=_hash_of_files(found, layout),
        documents=lambda: (text for file in found for text in files.read(file, layout)),
    )


def _hash_of_files(found: Iterable[File], layout: files.Layout) -> str:
    """SHA-256 over the content of the files and how they are read; their names do not matter, only their kinds."""
    digest = hashlib.sha256(layout.key().encode())
    for file in found:
        try:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest() + kind(file).encode())
        except OSError as error:
            raise DataError(f"cannot read {file}: {error.strerror}") from None
    return digest.hexdigest()


def _sample_source(options: DataOptions) -> Source:
    rows = list(sample.rows())
    check_column(options.text_column, rows, "the built-in sample")
    texts = [row_text(row, options.text_column, "the built-in sample") for row in rows]
    content = "\0".join(text or "" for text in texts)
    return Source(
        name="the built-in sample",
        fingerprint=hashlib.sha256(content.encode()).hexdigest(),
        documents=lambda: iter(texts),
    )


def _from_hub(options: DataOptions) -> Sources:
    builder = _builder(options)
    source = _streamed_source if options.streaming else _hub_source
    train = source(builder, options.dataset_split, options)
    own = "validation" if "validation" in _splits(builder) and options.validation_split_percentage else None
    validation = source(builder, own, options) if own and own not in options.dataset_split else None
    return Sources(
        train=train,
        validation=validation,
        held_out_percentage=_percentage(options, validation),
        streaming=options.streaming,
    )


def _builder(options: DataOptions) -> Any:
    import datasets

    name = options.dataset_name
    with _hub_errors(f"cannot load dataset {name!r} from the Hub"):
        builder = datasets.load_dataset_builder(name, options.dataset_config_name, revision=options.revision)
        if not options.streaming:
            builder.download_and_prepare()
    return builder


@contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    """Explain in one line what went wrong with the Hub, or with what came from it."""
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except (OSError, ValueError, RuntimeError, HfHubHTTPError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{what}: {first_line(error)}") from None


def _splits(builder: Any) -> list[str]:
    # Before a download there is no list of splits, unless the card has one.
    return list(builder.info.splits or builder.config.data_files or ())


def _hub_source(builder: Any, split: str, options: DataOptions) -> Source:
    name = f"dataset {options.dataset_name} {split}"
    try:
        dataset = builder.as_dataset(split=split)
    except ValueError as error:
        raise _no_split(builder, split, options, error) from None
    column = check_column(options.text_column, dataset.features.arrow_schema, name)
    table = dataset.select_columns([column]).with_format("arrow")
    return Source(
        name=name,
        fingerprint=f"{dataset._fingerprint} {options.text_column}",
        documents=lambda: _arrow_documents(table, options.text_column, name),
    )


def _streamed_source(builder: Any, split: str, options: DataOptions) -> Source:
    name = f"dataset {options.dataset_name} {split}"
    if "[" in split:
        raise OptionError(
            f"dataset_split {split!r}: a stream cannot be sliced; name a whole split, and use max_train_samples"
        )
    try:
        dataset = builder.as_streaming_dataset(split=split)
    except ValueError as error:
        raise _no_split(builder, split, options, error) from None
    return Source(
        name=name,
        # The hash is that of the commit, or of the files.
        fingerprint=f"stream {builder.hash} {builder.config_id} {split} {options.text_column}",
        documents=lambda: _arrow_documents(dataset.with_format("arrow"), options.text_column, name),
    )


def _no_split(builder: Any, split: str, options: DataOptions, error: ValueError) -> DataError:
    known = ", ".join(map(str, _splits(builder)))
    return DataError(f"dataset {options.dataset_name!r} has no split {split!r}: {error} (splits: {known})")


def _arrow_documents(table: Any, column: str, name: str) -> Iterator[str | None]:
    slices = table.iter(SLICE)
    first = True
    while True:
        with _hub_errors(f"cannot read {name}"):
            rows = next(slices, None)
        if rows is None:
            return
        if first:
            check_column(column, rows.schema, name)
            first = False
        yield from arrow_texts(rows, column, name)
