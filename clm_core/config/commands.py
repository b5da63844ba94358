"""The commands, in one table, and the options of each."""

from dataclasses import dataclass
from typing import Literal

from clm_core.config.data import DataOptions, PreparedOptions, PreprocessingOptions
from clm_core.config.declaration import option
from clm_core.config.hub import DatasetRepositoryOptions, HubOptions, ModelRepositoryOptions, PublishingOptions
from clm_core.config.model import ArchitectureOptions, TokenizerOptions, WeightsOptions
from clm_core.config.sampling import SamplingOptions
from clm_core.config.training import EvaluationOptions, OptimizationOptions, RunOptions
from clm_core.config.values import at_least, positive, positive_or_unlimited, shard


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


@dataclass(frozen=True)
class Command:
    """What is known of a command before it is imported; `clm_core.commands.NAME` carries it out."""

    config: type | None
    """The options that it has."""
    help: str
    with_backend: bool = True
    """Whether `--backend` means something to it."""
    reads_config: bool = True
    """Whether `--config` means something to it."""
    argument: tuple[str, str] | None = None
    """Its positional argument, and the help of that."""
    argument_required: bool = True


COMMANDS = {
    "train": Command(TrainConfig, "fine-tune a model, or train one from scratch"),
    "evaluate": Command(EvaluateConfig, "loss, perplexity, accuracy and bits per byte on a validation split"),
    "generate": Command(
        GenerateConfig,
        "continue a prompt",
        argument=("prompt", "the text to continue; default: standard input"),
        argument_required=False,
    ),
    "prepare": Command(PrepareConfig, "tokenize data once, for every backend"),
    "inspect": Command(
        InspectConfig,
        "look at prepared data",
        with_backend=False,
        reads_config=False,
        argument=("folder", "a folder written by `clm prepare`"),
    ),
    "push": Command(
        PushConfig,
        "publish a run or prepared data on the Hub, or go on where an upload stopped",
        with_backend=False,
        reads_config=False,
        argument=("folder", "the folder of a run, or one written by `clm prepare`"),
    ),
    "parity": Command(ParityConfig, "the same training through two backends, compared step by step"),
    "backends": Command(None, "the frameworks that are here, and how to get the others", with_backend=False),
}
"""Every command, in the order of the help."""
