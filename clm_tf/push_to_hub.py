"""Uploads from `model.fit`: transformers' PushToHubCallback without git, and with the last weights."""

from pathlib import Path
from typing import Any

import tf_keras as keras
from transformers import IntervalStrategy, PreTrainedTokenizerBase, TFPreTrainedModel
from transformers import PushToHubCallback as TransformersCallback
from transformers.modelcard import TrainingSummary

from clm_core.models.model_folder import complete
from clm_tf import adapters
from clm_tf.modeling import save
from clm_tf.uploads import WHOLE, UploadsFit

CHECKPOINT = "checkpoint"
"""The folder of the weights and the optimizer's state, where `model.load_repo_checkpoint` looks for them."""


class PushToHubCallback(UploadsFit, TransformersCallback):
    """Saves the model each epoch, or every `save_steps` batches, and uploads it; the last state always.

    Replaces `transformers.PushToHubCallback`, with the same arguments. It uploads over HTTP and in the background,
    needs no git and no clone, and `output_dir` may contain other files. States are saved during an upload too, and
    the newest is uploaded next. A failed upload raises nothing, because it should not
    end a training: it is logged, `error` says why, and `push` retries it. Weights are in PyTorch's layout.

    Args:
        output_dir: where the model is written.
        save_strategy: `no` (only at the end), `epoch` or `steps`.
        save_steps: batches between saves, for `steps`.
        tokenizer: is saved and uploaded with the model.
        hub_model_id: the repository; default: the name of `output_dir`, in your account.
        hub_token: default: the token that you logged in with, or HF_TOKEN.
        checkpoint: also upload the state of the optimizer, after each epoch, for `model.load_repo_checkpoint`, in the
            format of transformers, which is a pickle, and which knows the optimizers of `keras.optimizers.legacy`.
        hub_private_repo: create a private repository, or a public one; default: the owner's setting.
        hub_revision: the branch to upload to; default: main.
        **model_card_args: go to `transformers.modelcard.TrainingSummary.from_keras`.

    Raises:
        HubError: you are not logged in, or may not write to the repository.
        ValueError: the arguments contradict each other.
    """

    def __init__(
        self,
        output_dir: str | Path,
        save_strategy: str | IntervalStrategy = "epoch",
        save_steps: int | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        hub_model_id: str | None = None,
        hub_token: str | None = None,
        checkpoint: bool = False,
        *,
        hub_private_repo: bool | None = None,
        hub_revision: str | None = None,
        **model_card_args: Any,
    ) -> None:
        keras.callbacks.Callback.__init__(self)  # transformers' own would clone a repository.
        UploadsFit.__init__(
            self,
            output_dir,
            save_strategy=IntervalStrategy(save_strategy),
            save_steps=save_steps,
            tokenizer=tokenizer,
            hub_model_id=hub_model_id,
            hub_token=hub_token,
            checkpoint=checkpoint,
            hub_private_repo=hub_private_repo,
            hub_revision=hub_revision,
        )
        self.model_card_args = model_card_args

    def check_model(self) -> None:
        """Reject a model that this callback cannot save."""
        if adapters.of(self.model):
            raise ValueError(WHOLE)
        if self.checkpoint and not hasattr(self.model.optimizer, "get_weights"):
            raise ValueError(
                f"checkpoint: transformers saves no {type(self.model.optimizer).__name__} of this Keras: compile with "
                "one of keras.optimizers.legacy, or leave checkpoint out"
            )

    def write_model(self, folder: Path) -> None:
        """Write the model, with its tokenizer, for transformers."""
        if not isinstance(self.model, TFPreTrainedModel):
            name = type(self.model).__name__
            raise TypeError(f"{name} is not a transformers model, and PushToHubCallback saves no others")
        save(self.model, folder)
        complete(folder, self.tokenizer, self.model.config)

    def write_checkpoint(self, folder: Path, epoch: int) -> None:
        """Write the weights and the optimizer's state for `model.load_repo_checkpoint`."""
        self.model._save_checkpoint(str(folder / CHECKPOINT), epoch)

    def card(self) -> str:
        """The model card of transformers, after an epoch."""
        summary = TrainingSummary.from_keras(
            model=self.model,
            model_name=self.hub_model_id,
            keras_history=self.training_history,
            **self.model_card_args,
        )
        return summary.to_model_card()
