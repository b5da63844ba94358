"""The TensorFlow backend, and its stages for people who write their own `model.fit`.

    model = load("distilbert/distilgpt2")
    model.compile(optimizer=create_optimizer(schedule, options))
    model.fit(training_dataset(blocks, schedule), callbacks=[StepReport(schedule, print)])
    save(model, "runs/mine", tokenizer)

The names are imported when they are used, because clm imports this package to print help.
"""

from clm_core.lazy import lazy_names

_HOMES = {
    "AdamWeightDecay": "optimization",
    "Checkpoints": "callbacks",
    "Evaluation": "callbacks",
    "PushToHubCallback": "push_to_hub",
    "ScheduledLearningRate": "optimization",
    "StepCallback": "callbacks",
    "StepReport": "callbacks",
    "StepSeeds": "callbacks",
    "TensorFlowBackend": "backend",
    "TensorFlowOptions": "backend",
    "create_optimizer": "optimization",
    "evaluation_dataset": "datasets",
    "generate": "generation",
    "load": "modeling",
    "precision": "modeling",
    "prepare_tf_dataset": "datasets",
    "save": "modeling",
    "score": "scoring",
    "step_in_batches": "accumulation",
    "train": "training",
    "training_dataset": "datasets",
}

__all__ = sorted(_HOMES)


def _quiet() -> None:
    from clm_tf.backend import TensorFlowBackend

    TensorFlowBackend().quiet()


__getattr__, __dir__ = lazy_names(__name__, _HOMES, _quiet)
