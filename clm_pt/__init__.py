"""The PyTorch backend, and its stages for people who write their own loop.

    trainer = create_trainer(job)  # A `clm_core.TrainingJob`.
    trainer.train()
    save(trainer.model, "runs/mine", tokenizer)
    score(load("runs/mine"), blocks, batch_size=8)

The names are imported when they are used, because clm imports this package to print help.
"""

from clm_core.lazy import lazy_names

_HOMES = {
    "PyTorchBackend": "backend",
    "PyTorchOptions": "backend",
    "ScheduledTrainer": "trainer",
    "create_trainer": "training",
    "generate": "generation",
    "load": "modeling",
    "precision": "modeling",
    "save": "modeling",
    "score": "scoring",
    "train": "training",
    "training_arguments": "arguments",
}

__all__ = sorted(_HOMES)


def _quiet() -> None:
    from clm_pt.backend import PyTorchBackend

    PyTorchBackend().quiet()


__getattr__, __dir__ = lazy_names(__name__, _HOMES, _quiet)
