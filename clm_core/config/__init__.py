"""Every option, declared once: name, type, default and help. Flags, YAML keys and the reference follow.

The names are those of transformers' `TrainingArguments` and of its `run_clm` example.
"""

from clm_core.config.adapters import WITHOUT_LORA, AdapterOptions
from clm_core.config.commands import (
    COMMANDS,
    Command,
    EvaluateConfig,
    GenerateConfig,
    InspectConfig,
    MergeConfig,
    ParityConfig,
    PrepareConfig,
    PushConfig,
    TrainConfig,
)
from clm_core.config.data import COLUMNS, DataOptions, PreparedOptions, PreprocessingOptions
from clm_core.config.declaration import moved, option
from clm_core.config.hub import (
    DatasetRepositoryOptions,
    HubOptions,
    ModelRepositoryOptions,
    PublishingOptions,
    RepositoryOptions,
)
from clm_core.config.model import (
    AUTO,
    BFLOAT16,
    FLOAT32,
    NAMED,
    SAMPLE,
    ArchitectureOptions,
    DtypeOptions,
    ModelChangesOptions,
    TokenizerOptions,
    WeightsOptions,
    named,
)
from clm_core.config.sampling import SamplingOptions
from clm_core.config.training import DeviceOptions, EvaluationOptions, OptimizationOptions, PartsOptions, RunOptions
from clm_core.config.values import (
    ALL_LINEAR,
    at_least,
    between,
    delimiter,
    devices,
    encoding,
    license_name,
    not_negative,
    positive,
    positive_or_unlimited,
    shard,
)

__all__ = [
    "ALL_LINEAR",
    "AUTO",
    "BFLOAT16",
    "COLUMNS",
    "COMMANDS",
    "FLOAT32",
    "NAMED",
    "SAMPLE",
    "WITHOUT_LORA",
    "AdapterOptions",
    "ArchitectureOptions",
    "Command",
    "DataOptions",
    "DatasetRepositoryOptions",
    "DeviceOptions",
    "DtypeOptions",
    "EvaluateConfig",
    "EvaluationOptions",
    "GenerateConfig",
    "HubOptions",
    "InspectConfig",
    "MergeConfig",
    "ModelChangesOptions",
    "ModelRepositoryOptions",
    "OptimizationOptions",
    "ParityConfig",
    "PartsOptions",
    "PrepareConfig",
    "PreparedOptions",
    "PreprocessingOptions",
    "PublishingOptions",
    "PushConfig",
    "RepositoryOptions",
    "RunOptions",
    "SamplingOptions",
    "TokenizerOptions",
    "TrainConfig",
    "WeightsOptions",
    "at_least",
    "between",
    "delimiter",
    "devices",
    "encoding",
    "license_name",
    "moved",
    "named",
    "not_negative",
    "option",
    "positive",
    "positive_or_unlimited",
    "shard",
]
