"""PyTorch, for clm: the backend, and its stages for people who bring their own loop.

training_arguments, create_trainer   a configured `transformers.Trainer`
load, save                           a model from, and to, a folder
score                                the loss of a model on blocks
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "ScheduledTrainer": "training",
    "create_trainer": "training",
    "load": "modeling",
    "save": "modeling",
    "score": "scoring",
    "training_arguments": "arguments",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
