"""Options for the text, and for turning it into blocks of tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from clm_core.config.declaration import option
from clm_core.config.values import at_least, between, delimiter, encoding

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "text_column": (),
    "prompt_column": ("completion_column",),
    "completion_column": ("prompt_column", "text_template", "messages_column"),
    "text_template": ("completion_column",),
    "messages_column": ("completion_column",),
}
"""The options that say what of a row is its document, and those that each goes together with."""


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The text; with neither `dataset_name` nor files, the built-in sample."""

    dataset_name: str | None = option(None, "a dataset on the Hub")
    dataset_config_name: str | None = option(None, "the configuration of that dataset")
    dataset_split: str = option("train", "the split to train on, or a slice of it such as `train[:5000]`")
    revision: str | None = option(None, "the branch, tag or commit of the dataset on the Hub")
    streaming: bool = option(False, "read the dataset from the Hub while it is tokenized, and keep no copy")
    train_file: tuple[str, ...] = option(
        (),
        "text to train on: paths, globs or URLs of .txt, .json, .jsonl, .ndjson, .csv, .tsv or .parquet, plain or "
        "compressed as .gz, .bz2, .xz or .zst",
        metavar="PATH",
    )
    validation_file: tuple[str, ...] = option((), "text to evaluate on, in the same formats", metavar="PATH")
    validation_split_percentage: int = option(
        20,
        "percentage of documents held out if the dataset has no validation split; 0 disables validation",
        check=between(0, 99),
    )
    text_column: str = option(
        "text", "the column with the text; a dotted path reaches into nested columns: `answers.text`"
    )
    prompt_column: str | None = option(
        None, "the column with the prompt, where a row has a prompt and a completion", metavar="COLUMN"
    )
    completion_column: str | None = option(
        None,
        "the column with the completion, which follows the prompt as it is; with `text_template`, one of its columns: "
        "what comes before it is the prompt; with `messages_column`, one with the messages that follow those",
        metavar="COLUMN",
    )
    text_template: str | None = option(
        None,
        r"a text with columns in braces, such as `{question}\n{answer}`; `\n` is a line break, and `{{` a brace",
        metavar="TEMPLATE",
    )
    messages_column: str | None = option(
        None,
        "the column with a conversation, such as `messages`: a list of messages with `role` and `content`, which the "
        "tokenizer's chat template makes one text, with the tools in a column `tools`, if there is one",
        metavar="COLUMN",
    )
    completion_only_loss: bool | None = option(
        None,
        "train and evaluate on completions, and on what the assistant says, without prompts and other messages; "
        "default: yes, where there are any",
    )
    sample_by: Literal["line", "paragraph", "document"] = option(
        "paragraph", "what counts as a document in a .txt file: a line, the text between blank lines, or the whole file"
    )
    json_field: str | None = option(
        None,
        "where the rows are in a .json file that is one object: `data`, or a dotted path; `*` for every member of an "
        "object, `.` for the object as one row",
        metavar="FIELD",
    )
    csv_delimiter: str = option(
        "auto",
        "the delimiter of .csv files: a character, or `tab`; `auto` detects it in the header",
        check=delimiter,
        metavar="CHARACTER",
    )
    encoding: str | None = option(
        None,
        "the encoding of files without a byte order mark, such as `cp1252`; default: utf-8",
        check=encoding,
        metavar="NAME",
    )
    max_train_samples: int | None = option(None, "train on at most this many documents", check=at_least(1))
    max_train_tokens: int | None = option(
        None, "stop reading documents after this many tokens; the last document is kept whole", check=at_least(1)
    )
    max_eval_samples: int | None = option(None, "evaluate on at most this many documents", check=at_least(1))
    seed: int = option(
        42, "random seed for the split, block order, new weights and dropout", check=between(0, 2**32 - 1)
    )


@dataclass(frozen=True, kw_only=True)
class PreprocessingOptions:
    """From text to blocks of tokens."""

    block_size: int = option(128, "tokens per block", check=at_least(2))
    append_eos: bool = option(True, "put the end-of-sequence token between documents")
    packing: Literal["stream", "guide"] = option(
        "stream",
        "how to cut blocks: all tokens as one stream, or the guide's rows, by `group_texts` over each process's "
        "batches of 1,000 documents, with special tokens in the text read as such",
    )
    preprocessing_num_workers: int | None = option(
        None,
        "threads that tokenize; default: one per core; with packing `guide`, also its num_proc, which affects the "
        "rows, and is 1 by default",
        check=at_least(1),
    )
    overwrite_cache: bool = option(False, "tokenize again, even if the same data is in the cache")


@dataclass(frozen=True, kw_only=True)
class PreparedOptions:
    """Prepared data, instead of the options for text and blocks."""

    prepared: str | None = option(
        None,
        "a folder written by `clm prepare`, or prepared data on the Hub: `user/name`, `user/name@revision`",
        metavar="DIR",
    )
