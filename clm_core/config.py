"""Every option of clm, declared once: name, type, default and help. Flags, YAML keys and the reference follow.

The names are those of transformers' `TrainingArguments` and of its `run_clm` example.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from clm_core.values import (
    Check,
    at_least,
    between,
    delimiter,
    encoding,
    license_name,
    not_negative,
    positive,
    positive_or_unlimited,
    shard,
)


def option(
    default: Any, help: str, *, check: Check | None = None, metavar: str | None = None, short: str | None = None
) -> Any:
    """A dataclass field with its help, a check that its values go through, and perhaps a flag of one letter."""
    return field(default=default, metadata={"help": help, "check": check, "metavar": metavar, "short": short})


@dataclass(frozen=True, kw_only=True)
class TokenizerOptions:
    """Which tokenizer, and which model it goes with."""

    model_name_or_path: str | None = option(
        None, "a model to start from: a folder, or a name on the Hub; its tokenizer is used with it"
    )
    model_revision: str = option("main", "the branch, tag or commit of the model on the Hub")
    tokenizer_name: str | None = option(
        None, "a tokenizer of its own: a folder, a name on the Hub, or `sample`; default: the model's"
    )


@dataclass(frozen=True, kw_only=True)
class WeightsOptions:
    """How the weights of `model_name_or_path` are read."""

    ignore_unused_weights: bool = option(
        False, "take a model whose files also hold tensors that it does not use, such as those of an adapter"
    )


@dataclass(frozen=True, kw_only=True)
class ArchitectureOptions:
    """A model from scratch, instead of `model_name_or_path`."""

    config_name: str | None = option(None, "train from scratch with this configuration: a folder, or a name on the Hub")
    model_type: str | None = option(None, "train from scratch with this architecture's defaults, such as `gpt2`")
    config_overrides: str | None = option(
        None, "changes to the configuration, such as `n_embd=256,n_layer=4,n_head=4`", metavar="KEY=VALUE,..."
    )


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


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """How the validation blocks are scored."""

    per_device_eval_batch_size: int = option(8, "blocks in a batch of the evaluation", check=at_least(1))
    bf16: bool = option(False, "compute in bfloat16 where that is safe, and keep the weights in float32")


@dataclass(frozen=True, kw_only=True)
class OptimizationOptions:
    """How the weights are updated."""

    num_train_epochs: float = option(3.0, "epochs to train; a fraction ends within one", check=positive)
    max_steps: int = option(-1, "updates of the weights, whatever num_train_epochs", check=positive_or_unlimited)
    per_device_train_batch_size: int = option(8, "blocks in a batch", check=at_least(1))
    gradient_accumulation_steps: int = option(1, "batches in one update of the weights", check=at_least(1))
    dataloader_drop_last: bool = option(False, "leave out the last batch of an epoch where it is not full")
    learning_rate: float = option(2e-5, "the learning rate after the warmup", check=positive)
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = option(
        "linear", "how the learning rate goes on after the warmup"
    )
    warmup_steps: int = option(0, "updates over which the learning rate rises from 0", check=at_least(0))
    warmup_ratio: float = option(0.0, "the same, as a fraction of all updates", check=between(0, 1, open_high=True))
    weight_decay: float = option(0.01, "decoupled decay of weights; norms and biases have none", check=not_negative)
    adam_beta1: float = option(0.9, "AdamW's decay of the first moment", check=between(0, 1, open_high=True))
    adam_beta2: float = option(0.999, "AdamW's decay of the second moment", check=between(0, 1, open_high=True))
    adam_epsilon: float = option(1e-8, "AdamW's epsilon, outside the root", check=positive)
    max_grad_norm: float = option(1.0, "clip gradients to this global norm; 0 for no clipping", check=not_negative)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What is written, and when."""

    output_dir: str | None = option(
        None, "where the run is written; default: the first free runs/NAME-BACKEND", metavar="DIR"
    )
    overwrite_output_dir: bool = option(False, "delete what an earlier run left in output_dir")
    resume_from_checkpoint: str | None = option(
        None, "go on from this checkpoint, or from the last one of this run, with the options of the run", metavar="DIR"
    )
    eval_strategy: Literal["no", "steps", "epoch"] = option(
        "epoch", "when to validate during the training; unless `no`, also before it and after it"
    )
    eval_steps: int = option(500, "updates between validations, for eval_strategy `steps`", check=at_least(1))
    save_strategy: Literal["no", "steps", "epoch"] = option("epoch", "when to write a checkpoint")
    save_steps: int = option(500, "updates between checkpoints, for save_strategy `steps`", check=at_least(1))
    save_total_limit: int | None = option(2, "checkpoints to keep; `none` for all", check=at_least(1))
    logging_steps: int = option(10, "updates between reports of the loss", check=at_least(1))
    report_to: Literal["none", "tensorboard"] = option("none", "also write the curves for this program, in output_dir")


@dataclass(frozen=True, kw_only=True)
class PublishingOptions:
    """Publishing on the Hub; `clm push` does it at any time later."""

    push_to_hub: bool = option(False, "upload what was made to the Hub; log in with `hf auth login`, or set HF_TOKEN")


@dataclass(frozen=True, kw_only=True)
class RepositoryOptions:
    """The repository on the Hub."""

    hub_private_repo: bool | None = option(
        None, "make the repository a private one, or a public one; default: as its owner's settings say"
    )
    hub_revision: str | None = option(
        None, "the branch to upload to; made if it is not there; default: main", metavar="BRANCH"
    )
    hub_license: str | None = option(
        None,
        "the licence, for the card, as the Hub calls it, such as `mit`; default: none, but for the built-in sample's",
        metavar="NAME",
        check=license_name,
    )


@dataclass(frozen=True, kw_only=True)
class ModelRepositoryOptions(RepositoryOptions):
    """The name of a model on the Hub."""

    hub_model_id: str | None = option(
        None, "the repository, such as `user/name`; default: the name of the run's folder, under your own", metavar="ID"
    )


@dataclass(frozen=True, kw_only=True)
class DatasetRepositoryOptions(RepositoryOptions):
    """The name of prepared data on the Hub."""

    hub_dataset_id: str | None = option(
        None, "the data set, such as `user/name`; default: the name of the folder, under your own", metavar="ID"
    )


@dataclass(frozen=True, kw_only=True)
class HubOptions(ModelRepositoryOptions, PublishingOptions):
    """What of a training is published, and when."""

    hub_strategy: Literal["end", "every_save", "checkpoint"] = option(
        "end",
        "what to upload: the trained model at the end; each checkpoint's model as well; and its state, to resume from",
    )
    hub_offline: bool = option(False, "ask the Hub for nothing now, and leave the upload to `clm push`")


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How the next token is chosen."""

    max_new_tokens: int = option(100, "tokens to add to the prompt", check=at_least(1))
    do_sample: bool = option(False, "draw the next token at random instead of taking the likeliest")
    top_k: int = option(50, "draw from so many of the likeliest tokens; 0 for all", check=at_least(0))
    top_p: float = option(
        1.0, "draw from the likeliest tokens that have this probability together", check=between(0, 1, open_low=True)
    )
    temperature: float = option(1.0, "above 1 more varied, below 1 less", check=positive)
    seed: int = option(42, "of the draws", check=between(0, 2**32 - 1))


@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    HubOptions,
    RunOptions,
    OptimizationOptions,
    EvaluationOptions,
    PreparedOptions,
    PreprocessingOptions,
    DataOptions,
    ArchitectureOptions,
    WeightsOptions,
    TokenizerOptions,
):
    """The options of `train`."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(
    EvaluationOptions, PreparedOptions, PreprocessingOptions, DataOptions, WeightsOptions, TokenizerOptions
):
    """The options of `evaluate`; what is not given comes from the run that is evaluated, where it is one."""

    output_file: str | None = option(None, "also write the result to this JSON file", metavar="FILE")


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(SamplingOptions, WeightsOptions, TokenizerOptions):
    """The options of `generate`."""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(DatasetRepositoryOptions, PublishingOptions, PreprocessingOptions, DataOptions, TokenizerOptions):
    """The options of `prepare`."""

    output_dir: str | None = option(
        None, "write the prepared folder here, instead of into the cache", metavar="DIR", short="-o"
    )
    shard: str | None = option(
        None, "prepare only this part of the documents, such as 1/4 on one machine of four", metavar="I/N", check=shard
    )
    merge: tuple[str, ...] = option((), "join the folders of all parts, instead of preparing", metavar="DIR")


@dataclass(frozen=True, kw_only=True)
class ParityConfig(
    OptimizationOptions,
    EvaluationOptions,
    PreparedOptions,
    PreprocessingOptions,
    DataOptions,
    ArchitectureOptions,
    WeightsOptions,
    TokenizerOptions,
):
    """The options of `parity`; those of the training are the same for both backends."""

    backends: tuple[str, ...] = option((), "the two to compare; default: the two that are ready here", metavar="NAME")
    max_steps: int = option(10, "updates of the weights, whatever num_train_epochs", check=positive_or_unlimited)
    compare_steps: int = option(
        1, "updates between comparisons of weights and logits, which take their place on the disk", check=at_least(1)
    )
    tolerance: float = option(1.0, "how many times the usual differences count as agreement", check=positive)
    output_dir: str | None = option(
        None, "keep here what both have written, and a picture of their losses", metavar="DIR"
    )


@dataclass(frozen=True, kw_only=True)
class PushConfig(DatasetRepositoryOptions, ModelRepositoryOptions):
    """The options of `push`; what is not given is as it was published before, or as the run's own options say."""


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """The options of `inspect`."""

    block_size: int | None = option(
        None, "tokens in a block; default: that which the data were packed for, else 128", check=at_least(2)
    )
    split: Literal["train", "validation"] = option("train", "the split that the block is shown of")
    block: int | None = option(0, "decode the block of this number, from 0; `none` for no block", check=at_least(0))
    verify: bool = option(False, "check every byte against what was written")
    tokenizer_name: str | None = option(None, "decode with this tokenizer; default: the one used, if it is still there")
