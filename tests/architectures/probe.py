"""What one architecture can do on one backend: train, resume, save, load, score, generate, see no token too early.

Everything goes the way of a run: a configuration on disk, `new_architecture`, the backend's own `train`, `evaluate`
and `generate`, and the folder that a training leaves.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from shrink import VOCABULARY, shrink
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from clm_core.backend import Backend, Evaluated, EvaluationJob, GenerationJob, Model, StepDone
from clm_core.config import EvaluateConfig, SamplingOptions, TokenizerOptions, TrainConfig
from clm_core.models.configurations import load_architecture, new_architecture
from clm_core.testing import Trace, run, validation_blocks

STEPS, NEW_TOKENS = 3, 3
SAVING: dict[str, Any] = {"max_steps": STEPS, "save_strategy": "steps", "save_steps": 2, "save_total_limit": None}
Logits = Callable[[np.ndarray], np.ndarray]
"""Logits of a loaded model, float32 of shape (rows, length, vocabulary), for token ids of shape (rows, length)."""


class Failure(Exception):
    """An architecture does not do what it should; the message says why in a line."""


@dataclass
class Finding:
    """What came of a probe; a difference is the largest between two logits."""

    done: list[str] = field(default_factory=list)
    """Of `trains`, `resumes`, `loads`, `causal`, `generates`, `crosses`: what works, in this order."""
    failed: str = ""
    reason: str = ""
    difference: float | None = None
    """Between the logits on the two backends, of the weights that this one has written."""


@dataclass(frozen=True)
class Probed:
    """A backend, the model types that transformers maps for it, and how to load a model that gives logits."""

    backend: Backend
    model_types: frozenset[str]
    load: Callable[[Model], Logits]


def probe(model_type: str, probed: Probed, folder: Path, other: Probed | None = None) -> Finding:
    """Train a tiny model of an architecture in a folder, and try what can be done with what it wrote.

    `other` is a backend that is to read it too.
    """
    finding = Finding()
    with _stage(finding, "trains"):
        new = new_model(model_type, folder)
        trace = run(probed.backend, folder, model=new, **SAVING)
        _check_learns(trace)
    if "trains" in finding.done:
        with _stage(finding, "resumes"):
            rest = run(probed.backend, folder / "rest", model=new, resume_from=folder / "checkpoint-2", **SAVING)
            _check_goes_on(trace, rest)
        model = written(folder)
        with _stage(finding, "loads"):
            _check_scores_as_before(probed.backend, model, trace)
            logits = probed.load(model)
    if "loads" in finding.done:
        with _stage(finding, "causal"):
            _check_sees_no_later_token(logits)
        with _stage(finding, "generates"):
            _check_goes_on_with_the_likeliest(probed.backend, model, logits)
        if other and model_type in other.model_types:
            with _stage(finding, "crosses"):
                finding.difference = _difference(logits, other.load(model))
    # Where it was tried says nothing, and is another place each time.
    finding.reason = finding.reason.replace(str(folder), folder.name)
    return finding


def new_model(model_type: str, folder: Path) -> Model:
    """A tiny model from scratch, as a command makes it of a configuration, which is written into the folder."""
    shrink(model_type).save_pretrained(folder / "tiny")
    words = Tokenizer(WordLevel({str(number): number for number in range(VOCABULARY)}, "0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="0", pad_token=str(VOCABULARY - 1))
    architecture = new_architecture(TrainConfig(config_name=str(folder / "tiny")), tokenizer)
    return Model(name_or_path=None, revision="main", architecture=architecture, seed=1)


def written(folder: Path) -> Model:
    """The model that a training left in a folder, as a command finds it."""
    name = str(folder / "model")
    architecture = load_architecture(TokenizerOptions(model_name_or_path=name))
    return Model(name_or_path=name, revision="main", architecture=architecture, seed=1)


@contextmanager
def _stage(finding: Finding, name: str) -> Iterator[None]:
    """Take what goes wrong for a finding, whatever a library may raise; after a failure the rest is tried too."""
    try:
        yield
    except Exception as error:
        if not finding.failed:
            line = " ".join(str(error).split())
            finding.failed, finding.reason = name, line or type(error).__name__
    else:
        finding.done.append(name)


def _check_learns(trace: Trace) -> None:
    for step in trace.of(StepDone):
        if not (np.isfinite(step.loss) and step.grad_norm and np.isfinite(step.grad_norm)):
            raise Failure(f"has loss {step.loss} and a gradient of norm {step.grad_norm} at step {step.step}")


def _check_goes_on(whole: Trace, rest: Trace) -> None:
    """Make sure that a continued training equals an uninterrupted one bit for bit, in its losses and its weights."""
    if rest.of(StepDone) != whole.of(StepDone)[2:]:
        raise Failure(f"goes on with {rest.of(StepDone)} where the uninterrupted training has {whole.of(StepDone)[2:]}")
    found, expected = (load_file(trace.job.model_dir / "model.safetensors") for trace in (rest, whole))
    other = [name for name, array in expected.items() if array.tobytes() != found[name].tobytes()]
    if other:
        raise Failure(f"ends a continued training with other weights in {len(other)} tensors, such as {other[0]}")


def _check_scores_as_before(backend: Backend, model: Model, trace: Trace) -> None:
    config = EvaluateConfig()
    job = EvaluationJob(model=model, blocks=validation_blocks(), config=config, report=lambda event: None)
    before, after = trace.of(Evaluated)[-1].score, backend.evaluate(job)
    if not abs(after.loss_sum / before.loss_sum - 1) < 1e-6:
        raise Failure(f"scores {after.loss:.6f} when it is loaded, and {before.loss:.6f} before it was saved")


def _check_sees_no_later_token(logits: Logits) -> None:
    ids = _ids()
    changed = ids.copy()
    changed[:, -1] = (changed[:, -1] + 1) % (VOCABULARY - 1)
    one, other = logits(ids), logits(changed)
    moved = float(np.abs(one - other)[:, :-1].max() / np.abs(one).max())
    if moved > 1e-5:
        raise Failure(f"earlier logits move by {moved:.1e} of the largest when the last token changes")


def _check_goes_on_with_the_likeliest(backend: Backend, model: Model, logits: Logits) -> None:
    prompt = tuple(int(token) for token in _ids()[0, :5])
    config = SamplingOptions(max_new_tokens=NEW_TOKENS)
    new = tuple(backend.generate(GenerationJob(model=model, prompt=prompt, eos_token_ids=(), config=config)))
    if len(new) != NEW_TOKENS:
        raise Failure(f"generates {len(new)} tokens instead of {NEW_TOKENS}")
    predicted = logits(np.array([prompt + new]))[0, len(prompt) - 1 : -1]
    short = predicted.max(axis=-1) - predicted[np.arange(len(new)), list(new)]
    if short.max() > 1e-4:
        raise Failure("generates tokens that are not the likeliest by the logits of the whole text")


def _difference(one: Logits, other: Logits) -> float:
    found = float(np.abs(one(_ids()) - other(_ids())).max())
    if not found <= 1e-5:
        raise Failure(f"the other framework's logits are {found:.1e} away")
    return found


def _ids() -> np.ndarray:
    return validation_blocks().astype(np.int64)
