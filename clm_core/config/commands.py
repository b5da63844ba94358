"""The table of commands, and the options that each command takes."""

from dataclasses import dataclass
from typing import Literal

from clm_core.config.adapters import AdapterOptions
from clm_core.config.data import DataOptions, PreparedOptions, PreprocessingOptions
from clm_core.config.declaration import option
from clm_core.config.hub import DatasetRepositoryOptions, HubOptions, ModelRepositoryOptions, PublishingOptions
from clm_core.config.model import (
    ArchitectureOptions,
    ModelChangesOptions,
    TokenizerOptions,
    TrainedDtypeOptions,
    WeightsOptions,
)
from clm_core.config.sampling import SamplingOptions
from clm_core.config.training import DeviceOptions, EvaluationOptions, OptimizationOptions, PartsOptions, RunOptions
from clm_core.config.values import at_least, positive, positive_or_unlimited, shard


@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    HubOptions,
    DeviceOptions,
    RunOptions,
    OptimizationOptions,
    PartsOptions,
    TrainedDtypeOptions,
    EvaluationOptions,
    PreparedOptions,
    PreprocessingOptions,
    DataOptions,
    AdapterOptions,
    ModelChangesOptions,
    ArchitectureOptions,
    WeightsOptions,
    TokenizerOptions,
):
    """The options of `train`."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(
    DeviceOptions,
    EvaluationOptions,
    PreparedOptions,
    PreprocessingOptions,
    DataOptions,
    WeightsOptions,
    TokenizerOptions,
):
    """The options of `evaluate`; what is not given comes from the run that is evaluated, if it is one."""

    output_file: str | None = option(None, "also write the result to this JSON file", metavar="FILE")


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(SamplingOptions, WeightsOptions, TokenizerOptions):
    """The options of `generate`."""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(DatasetRepositoryOptions, PublishingOptions, PreprocessingOptions, DataOptions, TokenizerOptions):
    """The options of `prepare`."""

    output_dir: str | None = option(
        None, "write the prepared data to this folder instead of the cache", metavar="DIR", short="-o"
    )
    shard: str | None = option(
        None,
        "prepare only this shard of the data, such as 1/4 on the first of four machines",
        metavar="I/N",
        check=shard,
    )
    shard_by: Literal["document", "file"] = option(
        "document",
        "what the shards share out: documents, for which each reads all files; or files, of which each reads only its "
        "own; with `file`, the documents held out for validation are drawn from each file",
    )
    merge: tuple[str, ...] = option((), "merge the folders of all shards, instead of preparing", metavar="DIR")


@dataclass(frozen=True, kw_only=True)
class ParityConfig(
    OptimizationOptions,
    PartsOptions,
    TrainedDtypeOptions,
    EvaluationOptions,
    PreparedOptions,
    PreprocessingOptions,
    DataOptions,
    AdapterOptions,
    ModelChangesOptions,
    ArchitectureOptions,
    WeightsOptions,
    TokenizerOptions,
):
    """The options of `parity`; the training options are the same for both backends."""

    backends: tuple[str, ...] = option(
        (),
        "the two backends to compare; default: the two that are installed; of more, the two that come first",
        metavar="NAME",
    )
    max_steps: int = option(10, "number of steps; overrides num_train_epochs", check=positive_or_unlimited)
    compare_steps: int = option(
        1, "steps between comparisons of weights and logits; each one takes disk space", check=at_least(1)
    )
    tolerance: float = option(1.0, "multiply the default tolerances by this", check=positive)
    output_dir: str | None = option(None, "keep both sides' output here, with a plot of the losses", metavar="DIR")


@dataclass(frozen=True, kw_only=True)
class PushConfig(DatasetRepositoryOptions, ModelRepositoryOptions):
    """The options of `push`; what is not given stays as it was last published, or as the run's options say."""


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """The options of `merge-adapter`."""

    output_dir: str | None = option(None, "write the model to this folder, a new one", metavar="DIR", short="-o")


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """The options of `inspect`."""

    block_size: int | None = option(
        None, "tokens per block; default: what the data was packed for, otherwise 128", check=at_least(2)
    )
    split: Literal["train", "validation"] = option("train", "split to show a block from")
    block: int | None = option(0, "decode the block with this number, from 0; `none` for no block", check=at_least(0))
    verify: bool = option(False, "check every byte against its checksum")
    tokenizer_name: str | None = option(
        None, "decode with this tokenizer; default: the one the data was prepared with, if it can still be found"
    )


@dataclass(frozen=True)
class Command:
    """What is known of a command before it is imported; `clm_core.commands.NAME` carries it out."""

    config: type | None
    """The options that it has."""
    help: str
    with_backend: bool = True
    """Whether `--backend` means something to it."""
    without_backend: str = "takes no backend, leave it out"
    """What is said of `--backend`, if it means nothing."""
    reads_config: bool = True
    """Whether `--config` means something to it."""
    argument: tuple[str, str] | None = None
    """Its positional argument, and the help of that."""
    argument_required: bool = True


COMMANDS = {
    "train": Command(TrainConfig, "fine-tune a model, or train one from scratch"),
    "evaluate": Command(EvaluateConfig, "compute loss, perplexity, accuracy and bits per byte on a validation split"),
    "generate": Command(
        GenerateConfig,
        "continue a prompt",
        argument=("prompt", "the text to continue; default: standard input"),
        argument_required=False,
    ),
    "prepare": Command(PrepareConfig, "tokenize data once, for every backend"),
    "inspect": Command(
        InspectConfig,
        "show what prepared data contains",
        with_backend=False,
        reads_config=False,
        argument=("folder", "a folder written by `clm prepare`"),
    ),
    "verify": Command(
        None,
        "check that every file of a run, a checkpoint or prepared data is as it was written",
        with_backend=False,
        reads_config=False,
        argument=("folder", "the folder of a run or a checkpoint, or one written by `clm prepare`"),
    ),
    "merge-adapter": Command(
        MergeConfig,
        "make a whole model of an adapter and the model that it belongs to",
        with_backend=False,
        reads_config=False,
        argument=("folder", "the folder of an adapter's run or checkpoint, or an adapter on the Hub"),
    ),
    "push": Command(
        PushConfig,
        "publish a run or prepared data on the Hub, or continue an upload that stopped",
        with_backend=False,
        reads_config=False,
        argument=("folder", "the folder of a run, or one written by `clm prepare`"),
    ),
    "parity": Command(
        ParityConfig,
        "run one training on two backends and compare them step by step",
        with_backend=False,
        without_backend="needs two backends: name them as --backends A B",
    ),
    "backends": Command(None, "list installed backends and how to install the rest", with_backend=False),
}
"""Every command, in the order of the help."""
