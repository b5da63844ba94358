"""The contract between clm and a framework: what a backend implements, and the data that goes in and out.

No tensor crosses this interface: blocks of token ids go in as NumPy arrays; counts, sums and token ids come
back, or logits as a NumPy array where backends are compared. A backend speaks one framework and
decides nothing that the core can decide: the order of the blocks, the learning rates, when to evaluate and
when to save all come with the job.

A distribution makes its backend known by an entry point in the group `clm.backends`. The module that it names is
loaded to print help, so it imports no framework at module level: a backend has a second module for that, or, in
one file, imports its framework within functions.

Train, step by step, with what the core has for it. Weights, gradients and moments are float32 arrays
under the names and in the shapes that the parameters have in transformers' PyTorch class:

1. `clm_core.weights.load(job.source, shapes, ...)` reads the weights of the model or checkpoint, or
   draws the first ones of a new model, the same for every backend.
2. `clm_core.checkpoints.read_moments(job.resume_from, shapes)` reads AdamW's moments, if the job resumes.
3. `job.evaluate(step, score)`, first at `job.first_step` and then after each step, calls your `score()` if it is time;
   that returns the score, such as that of `clm_core.scoring.score_in_batches(job.validation, ...)`.
4. `job.schedule.steps(job.first_step)` gives each step with the rows of its batches. The loss of a step is
   the mean over all its tokens, so that each batch counts by its rows.
5. `clm_core.optimizer.adamw` says what an update is, with `job.schedule.learning_rates()[step - 1]` and, for each
   parameter, `clm_core.models.decay.decays`; then `job.report(StepDone(...))`. The dropout of a step is drawn from a
   seed that follows from the schedule's and the step, so that no checkpoint keeps a random state.
6. `clm_core.checkpoints.save(job, step, write)` if `job.saves_at(step)`: your `write(folder)` writes what 7 does, and
   `clm_core.checkpoints.write_moments(folder, ...)`.
7. `clm_core.weights.save(weights, job.model.architecture, job.model_dir)` writes the model, and reads it back.

A backend around a framework's own training loop takes from these what fits. `clm_core.sampling.choose` chooses the
next token. `clm_core.models.causality.check_causal` makes sure that a model attends to no token that it predicts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from clm_core.config import EvaluationOptions, SamplingOptions, TrainConfig
from clm_core.marker import step_of
from clm_core.stopping import EvaluationAbandonedError, Stop

if TYPE_CHECKING:  # This module is loaded to print help, which is not to wait for NumPy.
    import numpy as np
    import numpy.typing as npt

    from clm_core.schedule import Schedule

Blocks: TypeAlias = "npt.NDArray[np.unsignedinteger[Any]]"
"""Token ids of shape (blocks, block_size), uint16 or uint32, a read-only view of a file on disk.

Every id is below the model's vocabulary size. The first token of a block is context only; the
other block_size - 1 are predicted. There is no padding, and the mask is all ones.
"""

Logits: TypeAlias = "npt.NDArray[np.float32]"
"""The score of every token of the vocabulary after each token of some blocks: (blocks, block_size, vocabulary)."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """The score of a model on some blocks, as sums, so that scores of batches add up to the score of a split."""

    loss_sum: float
    """Negative log likelihood of the predicted tokens, in nats, summed."""
    correct: int
    """Predicted tokens that the model ranked first."""
    tokens: int
    """Predicted tokens: block_size - 1 for each block."""

    def __add__(self, other: Score) -> Score:
        sums = (self.loss_sum + other.loss_sum, self.correct + other.correct, self.tokens + other.tokens)
        return Score(loss_sum=sums[0], correct=sums[1], tokens=sums[2])

    @property
    def loss(self) -> float:
        """Mean negative log likelihood of a token, in nats."""
        return self.loss_sum / self.tokens


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """A training step finished."""

    step: int
    loss: float
    """Mean over the predicted tokens of this step's blocks, in nats, before the weights are updated."""
    grad_norm: float | None = None
    """Global norm of the gradient before clipping, where the backend has gradients."""
    auxiliary_loss: float | None = None
    """What the model adds to `loss` in training, such as for the balance of its experts, times its coefficient."""


@dataclass(frozen=True, kw_only=True)
class BatchScored:
    """An evaluation batch of this many blocks was scored."""

    blocks: int


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The validation split was scored, at a step where `schedule.evaluates_at(step)`; step 0 is before training."""

    step: int
    score: Score


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A checkpoint is complete on disk."""

    step: int
    path: Path


Event = StepDone | BatchScored | Evaluated | Saved
Report = Callable[[Event], None]


@dataclass(frozen=True, kw_only=True)
class Model:
    """Which weights to use: those at `name_or_path` or, if it is None, new ones drawn with `seed`.

    `clm_core.weights.load` does both. A backend that fills a model of its framework in place draws new weights with
    `clm_core.models.first_weights.first_weight`, never with its framework, so that all backends start from the same.
    """

    name_or_path: str | None
    revision: str
    architecture: Any
    """A `transformers.PretrainedConfig`."""
    seed: int
    ignore_unused_weights: bool = False
    """Whether the files may contain tensors that the model does not use; otherwise the core rejects them."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The devices that train together, as one of them sees it. Each takes its share of every step."""

    rank: int = 0
    """The number of this one, from 0."""
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this one writes, reports and prints."""
        return self.rank == 0


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Everything a backend needs to train a model."""

    model: Model
    """What the training began with; `source` is what to load."""
    train: Blocks
    validation: Blocks | None
    schedule: Schedule
    config: TrainConfig
    options: Any
    """An instance of the backend's own `options` class."""
    output_dir: Path
    """Where checkpoints go, through `clm_core.checkpoints.writing`; each has all that `model_dir` has, and moments."""
    model_dir: Path
    """An empty folder for the trained model: config.json, model.safetensors, generation_config.json.

    `clm_core.weights.save` writes them. config.json names the class in `architectures` and has `dtype` float32, by
    which transformers opens a model; it is the model's `architecture`, changed by nothing that only a backend needs.
    """
    resume_from: Path | None
    """A checkpoint, perhaps of another backend, to resume from with the same result as an uninterrupted training.

    `source` is its weights, `first_step` its step, and `clm_core.checkpoints.read_moments` reads its optimizer. What
    only this backend keeps is there if `clm_core.checkpoints.backend_of` is this backend. At the last step, no step is
    left, but the model is still to be written.
    """
    report: Report
    backend: str = ""
    """The name of the backend that trains, which its checkpoints say."""
    world: World = World()
    """The default is one device, which does everything."""
    add_to_checkpoint: Callable[[Path], None] = lambda folder: None
    """Writes what the core keeps in a checkpoint; `clm_core.checkpoints.writing` calls it."""
    stop: Stop = field(default_factory=Stop)
    """Whether the training is to end after its step; `evaluates_at`, `saves_at` and `report` take care of it."""
    evaluation_due: bool = False
    """Whether the evaluation at `first_step` is still to be made, because the one before the stop was abandoned."""

    @cached_property
    def first_step(self) -> int:
        """The steps that were made before."""
        return 0 if self.resume_from is None else step_of(self.resume_from)

    @property
    def source(self) -> Model:
        """What to load: the weights of the checkpoint, if there is one."""
        if self.resume_from is None:
            return self.model
        return replace(self.model, name_or_path=str(self.resume_from), revision="main")

    def evaluates_at(self, step: int) -> bool:
        """Whether to evaluate at this step: never without validation blocks, nor twice, nor if it is to stop."""
        is_new = step > self.first_step or self.resume_from is None or self.evaluation_due
        goes_on = step == self.first_step or not self.stop.requested  # `report` ends the first one, before any step.
        return goes_on and is_new and self.validation is not None and self.schedule.evaluates_at(step)

    def evaluate(self, step: int, score: Callable[[], Score]) -> Score | None:
        """Score and report, if it is time to; None if not. Where `score` reports a batch, it ends if it is to stop."""
        if not self.evaluates_at(step):
            return None
        try:
            found = score()
        except EvaluationAbandonedError:
            return None
        self.report(Evaluated(step=step, score=found))
        return found

    def saves_at(self, step: int) -> bool:
        """Whether to write a checkpoint after this step: where the schedule says, or if the training is to stop."""
        return self.schedule.saves_at(step) or (self.stop.requested and self.stop.saves)


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """Everything a backend needs to score blocks. A backend's own options are for training, and do not come here."""

    model: Model
    blocks: Blocks
    config: EvaluationOptions
    report: Report


@dataclass(frozen=True, kw_only=True)
class GenerationJob:
    """Everything a backend needs to continue a prompt, in float32."""

    model: Model
    prompt: tuple[int, ...]
    """Token ids, at least one."""
    eos_token_ids: tuple[int, ...]
    """Generation ends after any of these tokens."""
    config: SamplingOptions

    @property
    def eos_token_id(self) -> int | None:
        """The first, for a backend that supports only one."""
        return next(iter(self.eos_token_ids), None)

    def settings(self) -> dict[str, Any]:
        """The arguments of transformers' GenerationConfig, whatever the model's generation_config.json says."""
        config = self.config
        drawn = {"top_k": config.top_k, "top_p": config.top_p, "temperature": config.temperature}
        return {
            "max_new_tokens": config.max_new_tokens,
            "do_sample": config.do_sample,
            "eos_token_id": list(self.eos_token_ids) or None,
            # Nothing is padded in a batch of one, but without it transformers says which token it took.
            "pad_token_id": self.eos_token_id or 0,
            **(drawn if config.do_sample else {}),  # transformers warns of them where nothing is drawn.
        }


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
    unsupported: ClassVar[Mapping[str, str]] = {}
    """Options that the backend does not support, and why; clm rejects them on its behalf."""
    incomparable: ClassVar[str | None] = None
    """Why its numbers differ from other backends' for the same weights and blocks, if it computes a different model."""
    models: ClassVar[str] = ""
    """The models that it has, in a few words for `clm backends`."""
    comes_first: ClassVar[bool] = False
    """Whether it is before others in lists, and where `clm parity` could compare more than two and none are named."""
    options: ClassVar[type] = NoOptions
    """A frozen dataclass of the options of this backend alone, declared with `clm_core.config.option`."""
    opens: ClassVar[str] = ""
    """Markdown for model cards: how to open models in PyTorch's layout with it; `{model}` stands for the name."""

    def has_model(self, model_type: str) -> bool | None:
        """Whether it has a model for a `model_type`, which the core checks; None if it finds out when it loads one."""
        return None

    def start(self, *, verbose: bool) -> None:  # noqa: B027  (a hook that may stay empty)
        """Called once before the framework is imported, to quiet what it prints unless `verbose`."""

    def quiet(self) -> None:  # noqa: B027  (as above)
        """Called before a job that comes from Python: import the framework without its messages, nothing else."""

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
