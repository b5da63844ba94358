"""The Keras 3 backend: one decoder, described by data, for today's architectures.

    model = load("Qwen/Qwen3-0.6B")
    model.compile(optimizer=create_optimizer(schedule, options), loss=NextToken())
    model.fit(training_dataset(blocks, schedule), callbacks=[StepReport(schedule, print)])
    save(model, "runs/mine", tokenizer)

A model is a `keras.Model`: `fit`, `save("mine.keras")`, `export` and `enable_lora` are Keras' own. The names are
imported when they are used, because clm imports this package to print help; then Keras knows what its files name, too.
"""

from clm_core.lazy import lazy_names

_HOMES = {
    "Adafactor": "optimizers",
    "AdamW": "optimizers",
    "Checkpoints": "callbacks",
    "Decoder": "decoder",
    "Evaluation": "callbacks",
    "KerasBackend": "backend",
    "KerasOptions": "backend",
    "Muon": "optimizers",
    "NextToken": "optimization",
    "PushToHubCallback": "push_to_hub",
    "ScheduledLearningRate": "optimization",
    "StepCallback": "callbacks",
    "StepReport": "callbacks",
    "StepSeeds": "callbacks",
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

__all__ = sorted(_HOMES)


def _quiet() -> None:
    from clm_tf.keras3.backend import KerasBackend

    KerasBackend().quiet()
    # What a .keras file may name is known to Keras from now on.
    from clm_tf.keras3 import decoder, optimization  # noqa: F401


__getattr__, __dir__ = lazy_names(__name__, _HOMES, _quiet)
