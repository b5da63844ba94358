"""Uploads from `model.fit`: PushToHubCallback, known from transformers, for a decoder of Keras 3."""

import math
import numbers
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from clm_core.hub.card import table, ways_to_open
from clm_core.models.model_folder import complete
from clm_tf.keras3.decoder import Decoder
from clm_tf.keras3.modeling import configuration, save
from clm_tf.keras3.weights import shapes
from clm_tf.uploads import WHOLE, UploadsFit

CHECKPOINT = "checkpoint/model.keras"
"""The file of the weights and the optimizer's state."""


class PushToHubCallback(UploadsFit, keras.callbacks.Callback):
    """Saves the model each epoch, or every `save_steps` batches, and uploads it; the last state always.

    The arguments are those of transformers' callback of this name. It uploads over HTTP and in the background, and
    `output_dir` may contain other files. States are saved during an upload too, and the newest is uploaded next. A
    failed upload raises nothing, because it should not end a training: it is logged, `error` says why, and `push`
    retries it. The repository is one of transformers, with weights in PyTorch's layout.

    Args:
        output_dir: where the model is written.
        save_strategy: `no` (only at the end), `epoch` or `steps`.
        save_steps: batches between saves, for `steps`.
        tokenizer: is saved and uploaded with the model.
        hub_model_id: the repository; default: the name of `output_dir`, in your account.
        hub_token: default: the token that you logged in with, or HF_TOKEN.
        checkpoint: also upload `checkpoint/model.keras` after each epoch, with the state of the optimizer:
            `clm_tf.keras3.load` reads it, compiled, and `fit` continues.
        hub_private_repo: create a private repository, or a public one; default: the owner's setting.
        hub_revision: the branch to upload to; default: main.
        language: of the model, for its card, as a code such as `en`.
        license: of the model, for its card.
        tags: for its card, besides those that it has.
        finetuned_from: the name on the Hub of the model that the training started from, for the card.
        dataset: the name on the Hub of what it was trained on, or several, for the card.

    Raises:
        HubError: you are not logged in, or may not write to the repository.
        ValueError: the arguments contradict each other.
    """

    def __init__(
        self,
        output_dir: str | Path,
        save_strategy: str = "epoch",
        save_steps: int | None = None,
        tokenizer: Any = None,
        hub_model_id: str | None = None,
        hub_token: str | None = None,
        checkpoint: bool = False,
        *,
        hub_private_repo: bool | None = None,
        hub_revision: str | None = None,
        language: str | None = None,
        license: str | None = None,
        tags: str | Sequence[str] = (),
        finetuned_from: str | None = None,
        dataset: str | Sequence[str] = (),
    ) -> None:
        keras.callbacks.Callback.__init__(self)
        if save_steps is not None and save_strategy != "steps":
            raise ValueError(f"save_steps needs save_strategy 'steps', not {save_strategy!r}")
        UploadsFit.__init__(
            self,
            output_dir,
            save_strategy=save_strategy,
            save_steps=save_steps,
            tokenizer=tokenizer,
            hub_model_id=hub_model_id,
            hub_token=hub_token,
            checkpoint=checkpoint,
            hub_private_repo=hub_private_repo,
            hub_revision=hub_revision,
        )
        self.finetuned_from, self.dataset = finetuned_from, _several(dataset)
        self._metadata = {"language": language, "license": license, "base_model": finetuned_from}
        self._tags = _several(tags)

    def check_model(self) -> None:
        """Reject a model that this callback cannot save."""
        if not isinstance(self.model, Decoder):
            name = type(self.model).__name__
            raise TypeError(f"{name} is not a decoder of clm_tf.keras3, and PushToHubCallback saves no others")
        if self.model.adapted is not None:
            raise ValueError(WHOLE)
        if self.checkpoint and any(getattr(layer, "lora_enabled", False) for layer in self.model._flatten_layers()):
            raise ValueError("checkpoint: with LoRA, Keras saves no state to continue from: leave checkpoint out")

    def write_model(self, folder: Path) -> None:
        """Write the model, with its tokenizer, for transformers."""
        save(self.model, folder)
        complete(folder, self.tokenizer, configuration(self.model))

    def write_checkpoint(self, folder: Path, epoch: int) -> None:
        """Write the model as Keras does, with the optimizer's state, which counts the updates."""
        file = folder / CHECKPOINT
        file.parent.mkdir()
        self.model.save(file)

    def card(self) -> str:
        """The model card, after an epoch."""
        import transformers
        from huggingface_hub import ModelCardData

        name = self.hub_model_id.split("/")[-1]
        metadata = ModelCardData(
            **self._metadata,
            library_name="transformers",
            pipeline_tag="text-generation",
            tags=["clm", "causal-lm", "keras", *self._tags],
            datasets=self.dataset or None,
            model_name=name,
        )
        columns = tuple(dict.fromkeys(key for epoch in self.training_history for key in epoch))
        rows = [tuple(_figure(epoch.get(column)) for column in columns) for epoch in self.training_history]
        versions = [(package.__name__, package.__version__) for package in (keras, tf, transformers)]
        parts = [
            f"---\n{metadata.to_yaml()}\n---",
            f"# {name}",
            f"{self._origin()} with `fit` of Keras 3, and uploaded by clm.",
            "## Results",
            "What Keras measured in each epoch:",
            table(columns, rows),
            "## How to use it",
            *ways_to_open("keras", self.model.fields["model_type"], self.hub_model_id),
            "## How it was trained",
            table(("", ""), [*self._facts(), *versions]),
        ]
        return "\n\n".join(parts) + "\n"

    def _origin(self) -> str:
        base, data = self.finetuned_from, ", ".join(map(_link, self.dataset))
        origin = f"A causal language model, trained from {_link(base)}" if base else "A causal language model, trained"
        return f"{origin} on {data}" if data else origin

    def _facts(self) -> list[tuple[str, str]]:
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # Which float16 has, to scale the loss.
        rate = optimizer.get_config()["learning_rate"]
        return [
            ("parameters", f"{sum(map(math.prod, shapes(self.model).values())):,}"),
            ("optimizer", type(optimizer).__name__),
            ("learning rate", f"{rate:g}" if isinstance(rate, numbers.Real) else rate["class_name"]),
            ("updates", f"{int(optimizer.iterations.numpy()):,}"),
            ("dtype policy", self.model.dtype_policy.name),
        ]


def _several(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _link(name: str) -> str:
    return f"[{name}](https://huggingface.co/{name})"


def _figure(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{float(value):.4f}"
