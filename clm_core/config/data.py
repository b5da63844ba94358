"""The options of the text, and of the way from it to blocks of tokens."""

from dataclasses import dataclass
from typing import Literal

from clm_core.config.declaration import option
from clm_core.config.values import at_least, between, delimiter, encoding


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Where the text comes from; with neither `dataset_name` nor files, the built-in sample."""

    dataset_name: str | None = option(None, "a data set on the Hub")
    dataset_config_name: str | None = option(None, "the configuration of that data set")
    dataset_split: str = option("train", "the split to train on, or a slice of it such as `train[:5000]`")
    revision: str | None = option(None, "the branch, tag or commit of the data set on the Hub")
    streaming: bool = option(False, "read the data set from the Hub while it is tokenized, and keep no copy of it")
    train_file: tuple[str, ...] = option(
        (),
        "text to train on: paths, globs or URLs of .txt, .json, .jsonl, .csv, .tsv or .parquet, plain or packed as "
        ".gz, .bz2, .xz or .zst",
        metavar="PATH",
    )
    validation_file: tuple[str, ...] = option((), "text to validate on, of the same kinds", metavar="PATH")
    validation_split_percentage: int = option(
        20,
        "percent of the documents held out where the data bring no validation split; 0 for no validation",
        check=between(0, 99),
    )
    text_column: str = option("text", "the column of the text; a dotted path reaches into nested ones: `answers.text`")
    sample_by: Literal["line", "paragraph", "document"] = option(
        "paragraph", "what a document is in a .txt file: a line, text between blank lines, or the whole file"
    )
    json_field: str | None = option(
        None,
        "where the rows are in a .json file that is one object: `data`, or a dotted path; `*` for every member of an "
        "object, `.` for the object as one row",
        metavar="FIELD",
    )
    csv_delimiter: str = option(
        "auto",
        "what stands between the fields of a .csv file: a character, or `tab`; `auto` finds it in the header",
        check=delimiter,
        metavar="CHARACTER",
    )
    encoding: str | None = option(
        None,
        "the encoding of files without a byte order mark, such as `cp1252`; default: utf-8",
        check=encoding,
        metavar="NAME",
    )
    max_train_samples: int | None = option(None, "train on at most so many documents", check=at_least(1))
    max_train_tokens: int | None = option(
        None, "train on no more documents once they have so many tokens; the last one is whole", check=at_least(1)
    )
    max_eval_samples: int | None = option(None, "validate on at most so many documents", check=at_least(1))
    seed: int = option(42, "of the split, the order of the blocks, new weights, dropout", check=between(0, 2**32 - 1))


@dataclass(frozen=True, kw_only=True)
class PreprocessingOptions:
    """From text to blocks of tokens."""

    block_size: int = option(128, "tokens in a block", check=at_least(2))
    append_eos: bool = option(True, "put the end-of-sequence token between documents")
    packing: Literal["stream", "guide"] = option(
        "stream",
        "how blocks are cut: all tokens as one stream; or into the guide's very rows, by `group_texts` for each 1,000 "
        "documents and process, with special tokens in a text taken for such",
    )
    preprocessing_num_workers: int | None = option(
        None,
        "threads that tokenize; default: one for each core; with packing `guide` also its num_proc, which decides the "
        "rows; default there: 1",
        check=at_least(1),
    )
    overwrite_cache: bool = option(False, "tokenize again, even if the same data were tokenized before")


@dataclass(frozen=True, kw_only=True)
class PreparedOptions:
    """Data that were prepared before, instead of options for the data."""

    prepared: str | None = option(
        None, "a folder written by `clm prepare`, or one on the Hub: `user/name`, `user/name@revision`", metavar="DIR"
    )
