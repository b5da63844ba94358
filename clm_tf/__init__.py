"""The TensorFlow backend of clm, and its stages for people who bring their own `model.fit`.

    model = load(Model(name_or_path="distilgpt2", revision="main", architecture=config, seed=42))
    model.compile(optimizer=create_optimizer(schedule, options))
    model.fit(training_dataset(blocks, schedule), callbacks=[StepReport(schedule, print)])
    save(model, folder)

The names are imported when they are used, because clm imports this package to print help.
"""

import importlib
from typing import Any

_HOMES = {
    "AdamWeightDecay": "optimization",
    "Checkpoints": "callbacks",
    "Evaluation": "callbacks",
    "StepReport": "callbacks",
    "ScheduledLearningRate": "optimization",
    "StepCallback": "callbacks",
    "TensorFlowBackend": "backend",
    "TensorFlowOptions": "backend",
    "create_optimizer": "optimization",
    "evaluation_dataset": "datasets",
    "generate": "generation",
    "load": "modeling",
    "precision": "modeling",
    "save": "modeling",
    "score": "scoring",
    "train": "training",
    "training_dataset": "datasets",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
