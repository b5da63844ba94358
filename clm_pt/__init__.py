"""PyTorch, for clm: the backend, and its stages for people who bring their own loop.

training_arguments, create_trainer   a configured `transformers.Trainer`
load, save                           a model from, and to, a folder
score                                the loss of a model on blocks
"""

from clm_core.lazy import lazy_names

_HOMES = {
    "ScheduledTrainer": "trainer",
    "create_trainer": "training",
    "load": "modeling",
    "save": "modeling",
    "score": "scoring",
    "training_arguments": "arguments",
}

__all__ = sorted(_HOMES)


def _quiet() -> None:
    from clm_pt.backend import PyTorchBackend

    PyTorchBackend().quiet()


__getattr__, __dir__ = lazy_names(__name__, _HOMES, _quiet)
