"""What commands return, the same for every backend, and as JSON."""

import json
import math
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from clm_core.stopping import Ending

Metrics = dict[str, float | int]
"""loss (nats), perplexity, accuracy, bits_per_byte, tokens_scored."""

Kind = Literal["run", "checkpoint", "prepared data", "base of an adapter"]
State = Literal["whole", "damaged", "unproved", "unfinished"]
"""`unproved`: without checksums, because an earlier clm wrote it; `unfinished`: a run without results."""


class Result:
    """Base of all results."""

    def to_dict(self) -> dict[str, Any]:
        """The result in the types of JSON; a number that is infinite or not a number becomes None."""
        plain: dict[str, Any] = _plain(asdict(self))  # type: ignore[call-overload]
        return plain

    def to_json(self) -> str:
        """The result as one JSON object."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    def to_text(self) -> str:
        """The result as the content of a file."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"


@dataclass(frozen=True, kw_only=True)
class Publication(Result):
    """The outcome of an upload to the Hub."""

    repository: str
    """`user/name`; the name alone if the user is not known yet."""
    revision: str
    state: Literal["queued", "uploaded", "failed"]
    url: str | None = None
    commit: str | None = None
    """Commit at which the repository matched the disk."""
    error: str | None = None
    command: str | None = None
    """The command that uploads it, if it is not uploaded."""


@dataclass(frozen=True, kw_only=True)
class TrainingResult(Result):
    """The result of a training."""

    backend: str
    output_dir: Path
    steps: int
    epochs: float
    tokens_trained: int
    """Predicted tokens trained on, in all epochs, including those before the run was resumed."""
    seconds: float
    """Seconds in this process from the first step to the last, including evaluations and checkpoints."""
    before: Metrics | None
    """The metrics on the validation split before the first step; None if it was not evaluated."""
    after: Metrics | None
    """The metrics after the last step or, with `load_best_model_at_end`, of the best checkpoint.

    None where these were not evaluated: without validation data, `eval_strategy` no, or `max_train_time` was up.
    """
    history: tuple[dict[str, Any], ...]
    """Every reported loss and every evaluation, in order."""
    ledger: dict[str, Any]
    """Where every document and token went."""
    checkpoint: Path | None
    """The last checkpoint."""
    versions: dict[str, str]
    chosen: dict[str, str] = field(default_factory=dict)
    """What the backend decided by itself, such as `matrix products`: which of several ways was the fastest here."""
    peak_memory_bytes: int | None = None
    """The most memory that this process, or its accelerator, has had in use until the last step; None if unknown."""
    mfu: float | None = None
    """The part of its devices' peak that the training used, 0 to 1, the median over the history; None if unknown."""
    stopped_by: Ending | None = None
    """What ended the training before its last step: `early_stopping`, or `time`, after which it can be resumed."""
    best: dict[str, Any] | None = None
    """The step of the best checkpoint, and its figure: step, metric, value; None if it was not looked for."""
    hub: Publication | None = None
    """The outcome of a requested upload; a failed one raises nothing, for the training did not fail."""


@dataclass(frozen=True, kw_only=True)
class EvaluationResult(Result):
    """The result of an evaluation."""

    backend: str
    model: str
    metrics: Metrics
    ledger: dict[str, Any]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class GenerationResult(Result):
    """How a model continues a prompt."""

    backend: str
    model: str
    prompt: str
    completion: str
    tokens: int
    """New tokens, the end-of-sequence token included."""


@dataclass(frozen=True, kw_only=True)
class MergeResult(Result):
    """The whole model that an adapter and its base make."""

    folder: Path
    adapter: str
    base: str
    tensors: int
    """Of the whole model."""


@dataclass(frozen=True, kw_only=True)
class PreparationResult(Result):
    """Prepared data and its ledger."""

    folder: Path
    reused: bool
    """Whether the data was there already, so that nothing was tokenized."""
    tokenizer_name: str
    ledger: dict[str, Any]
    hub: Publication | None = None
    """The outcome of a requested upload."""


@dataclass(frozen=True, kw_only=True)
class InspectionResult(Result):
    """What prepared data looks like."""

    folder: Path
    verified: bool
    """Whether every byte was checked."""
    tokenizer_name: str
    engine: str
    dtype: str
    options: dict[str, Any]
    ledger: dict[str, Any]
    document_lengths: dict[str, dict[str, Any]]
    """For each split: shortest, median, mean and longest document in tokens, and a histogram."""
    block: dict[str, Any] | None
    """A block in pieces that end where documents end."""


@dataclass(frozen=True, kw_only=True)
class VerifiedPart:
    """A folder whose files were checked against one record."""

    kind: Kind
    folder: Path
    state: State
    files: int = 0
    """How many files were proved to be as they were written."""
    bytes: int = 0
    """The size of these files."""
    faults: tuple[str, ...] = ()
    """What is damaged, a line for each file."""


@dataclass(frozen=True, kw_only=True)
class VerificationResult(Result):
    """Whether a run, a checkpoint or prepared data is as it was written."""

    folder: Path
    kind: Kind
    state: State
    """`damaged` if a part is; otherwise `whole` if a part is proved to be whole, and the run is finished."""
    parts: tuple[VerifiedPart, ...]
    """The files of a run, then its checkpoints, oldest first, or the one folder; then the base of an adapter."""
    earlier: Path | None = None
    """The folder in a run's with the run that was to be replaced, until the new one has made a step."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The difference between two backends in one quantity."""

    quantity: str
    """loss, gradient norm, weights, logits or evaluation loss."""
    step: int
    """After this many steps; loss and gradient norm are those of the last of them."""
    relative: float
    tolerance: float
    tolerated: bool
    values: tuple[float, float] | None = None
    """Both values, if they are single numbers."""
    where: str | None = None


@dataclass(frozen=True, kw_only=True)
class ParityResult(Result):
    """How far two backends agree."""

    backends: tuple[str, ...]
    versions: dict[str, dict[str, str]]
    steps: int
    dropout: dict[str, float]
    """The dropout in the configuration, which was set to 0."""
    losses: dict[str, tuple[float, ...]]
    """The loss of each step, for each backend."""
    differences: tuple[Difference, ...]
    """Everything that was compared, in the order of the steps."""
    parted: Difference | None
    """The first difference above its tolerance; None if both agree."""
    output_dir: Path | None


def versions(requires: Iterable[str]) -> dict[str, str]:
    """The versions of Python, of clm and of what a backend with these requirements runs on."""
    from packaging.requirements import Requirement

    names = ["clm", "transformers", "tokenizers", "numpy", *(Requirement(line).name for line in requires)]
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
