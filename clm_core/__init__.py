"""The core: commands, options, data and schedule, without a framework.

The functions `train`, `evaluate`, `generate`, `prepare`, `inspect`, `verify`, `push`, `merge_adapter` and `parity`,
with their options and results.
Importing this package imports no framework, nor transformers or datasets; they are imported when a function needs them.
"""

from clm_core.lazy import lazy_names

_HOMES = {
    "train": "api",
    "evaluate": "api",
    "generate": "api",
    "merge_adapter": "api",
    "prepare": "api",
    "parity": "api",
    "push": "api",
    "inspect": "api",
    "verify": "api",
    "terminal_progress": "screen.progress",
    "Backend": "backend",
    "Model": "backend",
    "TrainingJob": "backend",
    "Prepared": "data.prepared",
    "Progress": "screen.progress",
    "Schedule": "schedule",
    "ClmError": "errors",
    "HubError": "errors",
    "epoch_order": "schedule",
    "get_backend": "registry",
    "list_backends": "registry",
    "list_recipes": "options.recipes",
    "EvaluateConfig": "config",
    "GenerateConfig": "config",
    "InspectConfig": "config",
    "MergeConfig": "config",
    "ParityConfig": "config",
    "PrepareConfig": "config",
    "PushConfig": "config",
    "TrainConfig": "config",
}

__all__ = sorted(_HOMES)

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
