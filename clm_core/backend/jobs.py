"""What the core hands to a backend: a model, blocks, a schedule, and what is to be done with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from clm_core.backend.adapter import Adapter
from clm_core.backend.blocks import Blocks
from clm_core.backend.events import Evaluated, Report, Score
from clm_core.backend.world import ALONE, World
from clm_core.config import (
    AdapterOptions,
    EvaluationOptions,
    OptimizationOptions,
    PartsOptions,
    RunOptions,
    SamplingOptions,
    TrainConfig,
)
from clm_core.stopping import EvaluationAbandonedError, Stop

if TYPE_CHECKING:  # This module is loaded to print help, which is not to wait for NumPy, nor for hashes.
    import numpy as np
    import numpy.typing as npt

    from clm_core.schedule import Schedule

Logits: TypeAlias = "npt.NDArray[np.float32]"
"""The score of every token of the vocabulary after each token of some blocks: (blocks, block_size, vocabulary)."""


OF_ONE = {"check_disk", "logging_steps", "output_dir", "overwrite_output_dir", "report_to", "resume_from_checkpoint"}
OF_ONE |= {"save_total_limit"}
"""Options that only the process that leads goes by, or that name a place which a machine may have elsewhere."""


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
    vocabulary: int | None = None
    """How many token embeddings it is to have, if the files have fewer; `clm_core.weights.load` adds them."""
    overridden: tuple[str, ...] = ()
    """The fields of the configuration that are others than in the files, which an error about the weights names."""
    adapter: Adapter | None = None
    """What is beside the weights of the model, which stay as they are: `clm_core.adapters` has all about it."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is known of a training before its data is prepared: what `Backend.check` decides by."""

    model: Model
    """What the training began with; `TrainingJob.source` is what to load."""
    config: TrainConfig
    options: Any
    """An instance of the backend's own `options` class."""
    resume_from: Path | None
    """A checkpoint, perhaps of another backend, to resume from with the same result as an uninterrupted training.

    `source` of a job is its weights, `first_step` its step; `clm_core.checkpoints.read_moments` reads its optimizer.
    What only this backend keeps is there if `clm_core.checkpoints.backend_of` is this backend. At the last step, no
    step is left, but the model is still to be written.
    """
    world: World = ALONE


@dataclass(frozen=True, kw_only=True)
class TrainingJob(Setup):
    """Everything a backend needs to train a model."""

    train: Blocks
    validation: Blocks | None
    schedule: Schedule
    output_dir: Path
    """Where checkpoints go, through `clm_core.checkpoints.writing`; each has all that `model_dir` has, and moments."""
    model_dir: Path
    """An empty folder for the trained model: config.json, model.safetensors, generation_config.json.

    `clm_core.weights.save` writes them. config.json names the class in `architectures` and has `dtype` float32, by
    which transformers opens a model; it is the model's `architecture`, changed by nothing that only a backend needs.
    """
    report: Report
    backend: str = ""
    """The name of the backend that trains, which its checkpoints say."""
    in_common: Mapping[str, str] = field(default_factory=dict)
    """What several processes must have in common besides what this says: the weights, and what they are scored on."""
    add_to_checkpoint: Callable[[Path], None] = lambda folder: None
    """Writes what the core keeps in a checkpoint; `clm_core.checkpoints.writing` calls it."""
    stop: Stop = field(default_factory=Stop)
    """Whether the training is to end after its step; `evaluates_at`, `saves_at` and `report` take care of it."""
    best_step: Callable[[], int | None] = lambda: None
    """The step whose checkpoint is the best so far, and is not removed; None if none is looked for."""
    chosen: dict[str, str] = field(default_factory=dict)
    """For the backend to fill: what it decides by itself, such as by what is fastest here. results.json has it, and
    so has a checkpoint, where `clm_core.checkpoints.chosen_in` finds it when the training resumes."""
    whole: set[int] = field(default_factory=set)
    """The steps whose checkpoints are known to be whole: that which it resumes from, and those written since."""
    evaluation_due: bool = False
    """Whether the evaluation at `first_step` is still to be made: it was abandoned, or was not due before."""

    is_scored: bool = False
    """Whether the evaluation at `first_step` was made already, before the training was started again."""

    @cached_property
    def first_step(self) -> int:
        """The steps that were made before."""
        from clm_core.marker import step_of

        return 0 if self.resume_from is None else step_of(self.resume_from)

    @property
    def source(self) -> Model:
        """What to load: the weights of the checkpoint, if there is one; of an adapter, these beside its base."""
        if self.resume_from is None:
            return self.model
        if self.model.adapter:
            return replace(self.model, adapter=replace(self.model.adapter, folder=str(self.resume_from)))
        return replace(self.model, name_or_path=str(self.resume_from), revision="main", vocabulary=None)

    def evaluates_at(self, step: int) -> bool:
        """Whether to evaluate at this step: never without validation blocks, nor twice, nor if it is to stop."""
        is_first_due = (self.resume_from is None or self.evaluation_due) and not self.is_scored
        is_new = step > self.first_step or is_first_due
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

    def identity(self) -> dict[str, str]:
        """What all processes that train together must have in common: short texts, by the name of what they are."""
        groups = (OptimizationOptions, PartsOptions, EvaluationOptions, AdapterOptions, RunOptions)
        options = {name: value for group in groups for name, value in _values(group, self.config).items()}
        options = {name: value for name, value in options.items() if name not in OF_ONE}
        own = {f"{self.backend} {name}": value for name, value in _values(type(self.options), self.options).items()}
        rest = {"first step": self.first_step, "model": _digest(self.model)}
        found = {**asdict(self.schedule), **options, **own, **rest, **self.in_common}
        return {name: str(value) for name, value in found.items()}

    def saves_at(self, step: int) -> bool:
        """Whether to write a checkpoint after this step: where the schedule says, or if the training is to stop."""
        return self.schedule.saves_at(step) or self.stop.keeps_state


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """Everything a backend needs to score blocks. A backend's own options are for training, and do not come here."""

    model: Model
    blocks: Blocks
    config: EvaluationOptions
    report: Report
    data: str = ""
    """SHA-256 of the tokens that the blocks are cut from."""
    world: World = ALONE
    in_common: Mapping[str, str] = field(default_factory=dict)
    """As of a `TrainingJob`."""
    stop: Stop = field(default_factory=Stop)

    def identity(self) -> dict[str, str]:
        """What all processes that score together must have in common: short texts, by the name of what they are."""
        found = {"blocks": self.blocks.shape, "data": self.data, "model": _digest(self.model)}
        options = _values(EvaluationOptions, self.config)
        return {name: str(value) for name, value in {**options, **found, **self.in_common}.items()}


@dataclass(frozen=True, kw_only=True)
class GenerationJob:
    """Everything a backend needs to continue a prompt, in float32 unless `config.has_bfloat16_weights`."""

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


def _values(group: type, options: Any) -> dict[str, Any]:
    return {each.name: getattr(options, each.name) for each in fields(group)}


def _digest(model: Model) -> str:
    import hashlib

    return hashlib.sha256(model.architecture.to_json_string().encode()).hexdigest()[:16]
