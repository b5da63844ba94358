"""What a backend implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from clm_core.backend.events import Score
from clm_core.backend.jobs import EvaluationJob, GenerationJob, Logits, Setup, TrainingJob
from clm_core.backend.world import ALONE, World
from clm_core.config import FLOAT32


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """The options of a backend without specific ones."""


class Backend(ABC):
    """A framework, as clm sees it. `clm_core.testing.BackendContract` is the suite that an implementation passes."""

    name: ClassVar[str]
    """What `--backend` takes; the same as the name of the entry point."""
    install: ClassVar[str]
    """The command that installs what the backend needs; the core adapts it for an extra of clm."""
    requires: ClassVar[tuple[str, ...]] = ()
    """Requirements as in pyproject.toml, checked before a job is handed over.

    The suite makes sure that the backend's module is loaded without them.
    """
    needs_for_adapters: ClassVar[tuple[str, ...]] = ()
    """Requirements for a model with an adapter, checked where there is one."""
    unsupported: ClassVar[Mapping[str, str]] = {}
    """Options that the backend does not support, and why; clm rejects them on its behalf.

    `OPTION=VALUE` names a single value, such as `optim=muon`.
    """
    incomparable: ClassVar[str | None] = None
    """Why its numbers differ from other backends' for the same weights and blocks, if it computes a different model."""
    masks: ClassVar[bool] = False
    """Whether its loss leaves out tokens that do not count, such as a prompt's; if not, clm rejects such data."""
    bfloat16: ClassVar[bool] = False
    """Whether it can have weights in bfloat16, with float32 ones in its optimizer; if not, clm rejects `dtype`."""
    models: ClassVar[str] = ""
    """The models that it has, in a few words for `clm backends`."""
    comes_first: ClassVar[bool] = False
    """Whether it is before others in lists, and where `clm parity` could compare more than two and none are named."""
    parallel: ClassVar[str | None] = None
    """How it uses several devices, in a few words for `clm backends`; None if it uses one, and more are rejected."""
    why_one_device: ClassVar[str] = ""
    """Why it uses one device, if there is something to say about it."""
    options: ClassVar[type] = NoOptions
    """A frozen dataclass of the options of this backend alone, declared with `clm_core.config.option`."""
    opens: ClassVar[str] = ""
    """Markdown for model cards: how to open models in PyTorch's layout with it; `{model}` stands for the name."""
    opens_adapter: ClassVar[str] = ""
    """The same for an adapter in peft's layout."""

    def why_not(self, option: str, value: object) -> str | None:
        """Why the backend does not support this value of an option, by what it declares; None if it does."""
        if why := self.unsupported.get(option, self.unsupported.get(f"{option}={value}")):
            return why
        return "its weights are float32" if option == "dtype" and value != FLOAT32 and not self.bfloat16 else None

    def has_model(self, model_type: str) -> bool | None:
        """Whether it has a model for a `model_type`, which the core checks; None if it finds out when it loads one."""
        return None

    def world(self, nproc_per_node: str | None) -> World:
        """The devices to train on, and those of this process: `nproc_per_node`, a number or `gpu`, on each machine.

        Whoever started several processes says so in the environment.
        """
        return ALONE

    def come(self) -> None:  # noqa: B027  (a hook that may stay empty)
        """Called where a command of several processes begins, before its data is prepared: be there for the others."""

    def leave(self, *, patient: bool) -> None:  # noqa: B027  (as above)
        """Called where an error has ended it: tell the others, which may wait for this process without end.

        If it is `patient`, also those that begin a little later; it is not where a signal has ended the command.
        """

    def accelerators(self) -> int:
        """How many GPUs, or others of the kind, `--nproc-per-node gpu` would train on here, where it takes several."""
        return 0

    def device_name(self) -> str | None:
        """What its maker calls the accelerator that this process trains on; None if that is none, or not known."""
        return None

    def launcher(self, nproc_per_node: str, arguments: Sequence[str]) -> list[str] | None:
        """The command that starts a Python module in a process for each device; None if one process takes them all.

        `-m`, the module and its arguments are added at its end; `arguments` are the user's own for the launcher.
        """
        return None

    def start(self, *, verbose: bool) -> None:  # noqa: B027  (as above)
        """Called once before the framework is imported, to quiet what it prints unless `verbose`."""

    def quiet(self) -> None:  # noqa: B027  (as above)
        """Called before a job that comes from Python: import the framework without its messages, nothing else."""

    def check(self, setup: Setup) -> None:  # noqa: B027  (as above)
        """Make sure that the options of a training go together, and with its model and its devices.

        The core calls it in each process, before data is prepared or anything of a run is written. `train` begins with
        the same, for whoever calls it without the core: a job is a `Setup` as well.

        Raises:
            OptionError: they do not.
            ModelError: it is the model alone that cannot be trained.
        """

    @abstractmethod
    def train(self, job: TrainingJob) -> None:
        """Train, report what happens, and write the model to `job.model_dir`.

        At a step, the order is StepDone, then Evaluated, then Saved, which `clm_core.checkpoints.save` reports. An
        exception from `report` ends the training: the loss is no longer a number, so that such weights are never saved,
        or it was asked to stop, and has saved. A training with no step to make evaluates if it is time, and writes the
        weights that it starts with.
        """

    @abstractmethod
    def evaluate(self, job: EvaluationJob) -> Score:
        """Score blocks in inference mode."""

    @abstractmethod
    def generate(self, job: GenerationJob) -> Sequence[int]:
        """Return the ids of the tokens that follow the prompt, without the prompt."""

    def logits(self, job: EvaluationJob) -> Logits:
        """Return the logits of blocks in inference mode; a backend that is `incomparable` does not need it."""
        raise NotImplementedError(f"backend {self.name} does not implement logits, which a comparison needs")
