"""Finds the documents: a dataset on the Hub, local files or the built-in sample; and which are held out.

The split is by document, before anything is cut into blocks, and is decided document by document from
the seed alone, so that it needs no second pass and does not depend on how the documents are read.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

from clm_core import sample
from clm_core.config import DataOptions
from clm_core.data.columns import arrow_columns, arrow_documents, check_column, row_document
from clm_core.data.documents import Wanted, check_columns
from clm_core.data.named_files import (
    BY_FILE,
    FILES,
    OF_KINDS,
    NamedFiles,
    digest_names,
    is_by_file,
    layout_of,
    named_files,
)
from clm_core.data.readers import files
from clm_core.data.readers.opening import kind
from clm_core.data.taking import take
from clm_core.durable import stamps
from clm_core.errors import DataError, OptionError, first_line

OF_HUB = ("dataset_config_name", "revision", "dataset_split", "streaming")
"""The options that apply only to a dataset on the Hub."""

SLICE = 1000
"""Rows read from Arrow at a time."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A sequence of documents that can be read again and again, and a name for its content."""

    name: str
    fingerprint: str
    """Changes when the documents do; SHA-256 of the content, or the identity of a dataset on the Hub."""
    documents: Callable[[], Iterator[Any]]
    files: Mapping[int, Callable[[], Iterator[Any]]] | None = None
    """The same by the number of the file they are in, where those that are held out are drawn from each file."""

    def of(self, change: Callable[[Iterator[Any]], Iterator[Any]]) -> "Source":
        """The source whose documents are what is made of these."""
        own = self.files and {number: partial(_changed, change, read) for number, read in self.files.items()}
        return replace(self, documents=partial(_changed, change, self.documents), files=own)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The documents to train and evaluate on; if `validation` is None, some of the former are held out."""

    train: Source | None
    validation: Source | None
    held_out_percentage: int
    streaming: bool = False
    """Whether the documents come over the network while they are read, so that reading more has a cost."""
    files: str | None = None
    """SHA-256 of the names of all files, if these are those of a shard."""
    taken: dict[str, Any] = field(default_factory=dict)
    """The options for the columns that are taken by themselves."""

    def of(self, change: Callable[[Iterator[Any]], Iterator[Any]]) -> "Sources":
        """The sources whose documents are what is made of these."""
        return replace(
            self, train=self.train and self.train.of(change), validation=self.validation and self.validation.of(change)
        )


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
    """Check the names and kinds of files, and the content of the first that is read, before anything slow starts.

    Raises:
        OptionError: the options name two kinds of data, or one does not apply to this data.
        DataError: a file does not exist, is of an unsupported kind, or has no such column.
    """
    _check_together(options)
    if options.dataset_name:
        return
    if not (options.train_file or options.validation_file):
        _sample_source(options)
        return
    for named in _named(options)[0].values():
        named.check()


def is_held_out(document: int, *, seed: int, percentage: int, file: int | None = None) -> bool:
    """Whether the document of this number goes to the validation split; counted in the `file` of a number, if given.

    The documents fall into groups of 100 / percentage in a row, and of each group one is drawn at random, so
    that the share is exact to one document wherever the documents end.
    """
    if percentage > 50:
        return not is_held_out(document, seed=seed, percentage=100 - percentage, file=file)
    if not percentage:
        return False
    group = document * percentage // 100
    first, end = (-(-100 * number // percentage) for number in (group, group + 1))
    return document - first == _drawn(str(seed) if file is None else f"{seed} {file}", group, end - first)


@lru_cache(maxsize=4)
def _drawn(seed: str, group: int, size: int) -> int:
    return min(
        range(size), key=lambda index: hashlib.blake2b(f"{seed} {group} {index}".encode(), digest_size=8).digest()
    )


def _check_together(options: DataOptions) -> None:
    """Reject options that contradict each other, or do not apply to this data."""
    by_file = any(getattr(options, name) for name in FILES)
    if options.dataset_name and by_file:
        raise OptionError("dataset_name cannot be combined with train_file or validation_file: give one of them")
    check_columns(options)
    if is_by_file(vars(options)) and not by_file:
        raise OptionError(f"shard_by {BY_FILE} is for files: {_way_to_files(options)}")
    for option in fields(DataOptions):
        value = getattr(options, option.name)
        if value == option.default:
            continue
        if option.name in OF_HUB and not options.dataset_name:
            raise OptionError(f"{option.name} {value!r} has no effect without dataset_name")
        if option.name in OF_KINDS and not by_file:
            raise OptionError(f"{option.name} {value!r} has no effect without train_file")


def _way_to_files(options: DataOptions) -> str:
    if options.dataset_name:
        return f"name those of the dataset, such as --train-file 'hf://datasets/{options.dataset_name}/**/*.parquet'"
    return "give --train-file, or leave it out"


def _from_files(options: DataOptions) -> Sources:
    named, taken = _named(options)
    train, validation = (_file_source(name, named[name], options) for name in FILES)
    is_shard = is_by_file(vars(options)) and getattr(options, "shard", None)
    return Sources(
        train=train,
        validation=validation,
        held_out_percentage=_percentage(options, validation),
        files=digest_names(named.values()) if is_shard else None,
        taken=taken,
    )


def _named(options: DataOptions) -> tuple[dict[str, NamedFiles], dict[str, Any]]:
    """The files of each option, and the options for the columns that are taken by themselves, by the first file."""
    named = named_files(options)
    first = next((each.listed[each.own.start] for each in named.values() if each.own), None)
    if first is None or kind(first) in files.TEXT:
        return named, {}

    def find() -> dict[str, Any]:
        return take(options, lambda given: next(files.read(first, layout_of(given)), None))

    if isinstance(first, Path):  # One of .json is read whole for it: once.
        what = f"columns taken of {layout_of(options).key()}, packing {vars(options).get('packing')}"
        taken = json.loads(stamps.once(what, [first], lambda: json.dumps(find())))
    else:
        taken = {} if kind(first) == ".json" else find()
    layout = layout_of(replace(options, **taken))
    return {name: replace(each, layout=layout) for name, each in named.items()}, taken


def _percentage(options: DataOptions, validation: Source | None) -> int:
    return 0 if validation else options.validation_split_percentage


def _file_source(option: str, named: NamedFiles, options: DataOptions) -> Source | None:
    if not named.listed:
        return None
    parts = {number: partial(named.read, number) for number in named.own}
    return Source(
        name=f"{option} {', '.join(getattr(options, option))}",
        fingerprint=named.fingerprint(),
        documents=lambda: chain.from_iterable(read() for read in parts.values()),
        files=parts if named.by_file else None,
    )


def _sample_source(options: DataOptions) -> Source:
    rows, layout = list(sample.rows()), layout_of(options)
    for column, option in layout.wanted.columns.items():
        check_column(column, rows, "the built-in sample", option)
    texts = [row_document(row, layout.wanted, "the built-in sample") for row in rows]
    content = "\0".join(text or "" if isinstance(text, str | None) else repr(text) for text in texts)
    return Source(
        name="the built-in sample",
        fingerprint=hashlib.sha256(content.encode()).hexdigest(),
        documents=lambda: iter(texts),
    )


def _from_hub(options: DataOptions) -> Sources:
    builder = _builder(options)
    source = _streamed_source if options.streaming else _hub_source
    taken: dict[str, Any] = {}
    if options.text_column not in (builder.info.features or {}):
        taken = take(options, lambda given: next(source(builder, given.dataset_split, given).documents(), None))
        options = replace(options, **taken)
    train = source(builder, options.dataset_split, options)
    own = "validation" if "validation" in _splits(builder) and options.validation_split_percentage else None
    validation = source(builder, own, options) if own and own not in options.dataset_split else None
    return Sources(
        train=train,
        validation=validation,
        held_out_percentage=_percentage(options, validation),
        streaming=options.streaming,
        taken=taken,
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
    wanted = layout_of(options).wanted
    table = dataset.select_columns(arrow_columns(dataset.features.arrow_schema, wanted, name)).with_format("arrow")
    return Source(
        name=name,
        fingerprint=f"{dataset._fingerprint} {_columns(options)}",
        documents=lambda: _arrow_documents(table, wanted, name),
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
        fingerprint=f"stream {builder.hash} {builder.config_id} {split} {_columns(options)}",
        documents=lambda: _arrow_documents(dataset.with_format("arrow"), layout_of(options).wanted, name),
    )


def _no_split(builder: Any, split: str, options: DataOptions, error: ValueError) -> DataError:
    known = ", ".join(map(str, _splits(builder)))
    return DataError(f"dataset {options.dataset_name!r} has no split {split!r}: {error} (splits: {known})")


def _columns(options: DataOptions) -> str:
    """The columns in a fingerprint; those of text alone as ever, so that older ones stay valid."""
    layout = layout_of(options)
    return options.text_column if layout.wanted.columns == {options.text_column: "text_column"} else layout.key()


def _changed(change: Callable[[Iterator[Any]], Iterator[Any]], read: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    return change(read())


def _arrow_documents(table: Any, wanted: Wanted, name: str) -> Iterator[Any]:
    slices = table.iter(SLICE)
    first = 1
    while True:
        with _hub_errors(f"cannot read {name}"):
            rows = next(slices, None)
        if rows is None:
            return
        if first == 1:
            arrow_columns(rows.schema, wanted, name)
        yield from arrow_documents(rows, wanted, name, first)
        first += rows.num_rows
