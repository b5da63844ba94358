"""Uploads from the `fit` of either Keras: in the background, and the last weights always. Each package adds its own."""

import logging
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_core.durable import copy, discard, remove
from clm_core.errors import HubError
from clm_core.hub.account import MODEL, Hub, Repository
from clm_core.hub.background import Background
from clm_core.hub.upload import Files, upload, without_bars

logger = logging.getLogger(__name__)

WHOLE = "PushToHubCallback uploads whole models, and this one has an adapter: upload the folder that `save` writes"


STRATEGIES = ("no", "epoch", "steps")
"""When a model is saved and uploaded, besides at the end."""


@dataclass(frozen=True)
class _State:
    """A model as it was saved."""

    folder: Path
    message: str

    def files(self) -> dict[str, Path]:
        """The files for a repository."""
        return {str(path.relative_to(self.folder)): path for path in self.folder.rglob("*") if path.is_file()}

    def remove(self) -> None:
        """Remove it."""
        discard(self.folder)


class UploadsFit:
    """Saves the model each epoch, or every `save_steps` batches, and uploads it; the last state always.

    States are saved during an upload too, and the newest is uploaded next. A failed upload raises nothing, because it
    should not end a training: it is logged, `error` says why, and `push` retries it.

    Raises:
        HubError: you are not logged in, or may not write to the repository.
        ValueError: the arguments contradict each other.
    """

    model: Any

    def __init__(
        self,
        output_dir: str | Path,
        *,
        save_strategy: str,
        save_steps: int | None,
        tokenizer: Any,
        hub_model_id: str | None,
        hub_token: str | None,
        checkpoint: bool,
        hub_private_repo: bool | None,
        hub_revision: str | None,
    ) -> None:
        # The next class is not called, because transformers' own would clone a repository: each package calls Keras'.
        if save_strategy not in STRATEGIES:
            raise ValueError(f"save_strategy is one of {', '.join(STRATEGIES)}, not {save_strategy!r}")
        if checkpoint and save_strategy != "epoch":
            raise ValueError("checkpoint needs save_strategy 'epoch'")
        if save_strategy == "steps" and not (isinstance(save_steps, int) and save_steps > 0):
            raise ValueError(f"save_strategy 'steps' needs save_steps, a whole number above 0, not {save_steps!r}")
        self.save_strategy = save_strategy
        self.save_steps, self.tokenizer, self.checkpoint = save_steps, tokenizer, checkpoint
        self.output_dir = Path(output_dir)
        self.training_history: list[dict[str, Any]] = []
        self.error: str | None = None
        """Why the last upload failed; None if it did not."""
        self._hub = Hub.connect(logger.warning, token=hub_token)
        self.hub_model_id = self._hub.full_name(hub_model_id or self.output_dir.absolute().name)
        self._repository = Repository(
            id=self.hub_model_id, kind=MODEL, revision=hub_revision or "main", private=hub_private_repo
        )
        self._hub.make(self._repository)
        self._background: Background[_State] | None = None
        self._saved: set[str] = set()
        """The files that were written into `output_dir`."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin a history: that of Keras may be written after this callback was called."""
        self.check_model()
        self.training_history = []
        self._background = Background(self._upload, _State.remove)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Save and upload, if due."""
        every = self.save_steps if self.save_strategy == "steps" else None
        if every and (batch + 1) % every == 0:
            self._submit(self._save(f"Training in progress steps {batch}"))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note the epoch; save and upload, if due."""
        self.training_history.append({"epoch": epoch, **(logs or {})})
        if self.save_strategy == "epoch":
            self._submit(self._save(f"Training in progress epoch {epoch}", epoch=epoch))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Save, wait for the current upload, and upload the last state."""
        last = self._save("End of training", epoch=self._epoch_to_checkpoint())
        if self._background:
            self._background.stop()
        self._upload(last, threading.Event())
        last.remove()

    def push(self) -> str:
        """Make the repository equal to `output_dir` as it was last saved, and return its address.

        Raises:
            HubError: it failed.
        """
        files: Files = {path: self.output_dir / path for path in sorted(self._saved)}
        done = upload(self._hub, self._repository, files, message="Upload the model")
        self.error = None
        return done.url

    def check_model(self) -> None:
        """Reject a model that this callback cannot save."""

    def write_model(self, folder: Path) -> None:
        """Write the model, with its tokenizer, for transformers."""
        raise NotImplementedError

    def write_checkpoint(self, folder: Path, epoch: int) -> None:
        """Write what the training of the model can be continued from."""
        raise NotImplementedError

    def card(self) -> str:
        """The model card, after an epoch."""
        raise NotImplementedError

    def _epoch_to_checkpoint(self) -> int | None:
        return self.training_history[-1]["epoch"] if self.training_history else None

    def _save(self, message: str, epoch: int | None = None) -> _State:
        """Write the model into a separate folder, and from there to `output_dir`, each file whole or not at all."""
        self.output_dir.mkdir(parents=True, exist_ok=True)
        state = _State(Path(tempfile.mkdtemp(prefix=".upload-", dir=self.output_dir)), message)
        try:
            self._write(state, epoch)
        except BaseException:
            state.remove()
            raise
        return state

    def _write(self, state: _State, epoch: int | None) -> None:
        self.write_model(state.folder)
        if self.checkpoint and epoch is not None:
            self.write_checkpoint(state.folder, epoch)
        if self.training_history:
            (state.folder / "README.md").write_text(self.card(), encoding="utf-8")
        for path, source in state.files().items():
            target = self.output_dir / path
            if target.parent.is_symlink() and target.parent != self.output_dir:
                remove(target.parent)  # Such as `checkpoint`, which would be written to where the link leads.
            target.parent.mkdir(exist_ok=True)
            copy(source, target)
            self._saved.add(path)

    def _submit(self, state: _State) -> None:
        assert self._background
        self._background.submit(state)

    def _upload(self, state: _State, stopped: threading.Event) -> None:
        try:
            with without_bars():
                upload(self._hub, self._repository, state.files(), message=state.message, stopped=stopped)
            self.error = None
        except HubError as error:
            self.error = str(error)
            if not stopped.is_set():
                logger.warning(
                    "%s was not uploaded to %s: %s. It is in %s; call push() on the callback to upload it.",
                    *(state.message, self.hub_model_id, error, self.output_dir),
                )
