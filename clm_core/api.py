"""The commands as Python functions: `clm_core.train(...)`; options are arguments, named like the flags.

    import clm_core as clm
    run = clm.train(backend="pt", train_file="my.jsonl", text_column="body", model_type="gpt2", tokenizer_name="sample")
    print(clm.evaluate(backend="tf", model_name_or_path=run.output_dir).metrics["perplexity"])

Backend-specific options go into a mapping under the backend's name: `pt={"torch_compile": True}`. `config` takes a
recipe or a file. clm prints nothing unless you pass `progress`, and silences the framework unless you pass `verbose`;
what you print, log or warn of yourself is unaffected.
"""

from pathlib import Path
from typing import Any

from clm_core.backend import Backend
from clm_core.commands import evaluate as _evaluate
from clm_core.commands import generate as _generate
from clm_core.commands import inspect as _inspect
from clm_core.commands import merge_adapter as _merge
from clm_core.commands import prepare as _prepare
from clm_core.commands import train as _train
from clm_core.commands import verify as _verify
from clm_core.commands.first_look import look
from clm_core.comparison.compare import compare
from clm_core.hub import pushing
from clm_core.options import from_arguments, resolve
from clm_core.registry import get_backend
from clm_core.results import (
    EvaluationResult,
    GenerationResult,
    InspectionResult,
    MergeResult,
    ParityResult,
    PreparationResult,
    Publication,
    TrainingResult,
    VerificationResult,
)
from clm_core.screen.progress import Progress

SILENT = Progress()


def train(
    *,
    backend: str | None = None,
    config: str | Path | None = None,
    progress: Progress = SILENT,
    verbose: bool = False,
    **options: Any,
) -> TrainingResult:
    """Train a model; takes the options of `TrainConfig`.

    Raises:
        ClmError: an option, the data, the model, the backend or the output folder cannot be used as requested.
    """
    request = resolve.training(from_arguments(options), file=config, backend=get_backend(backend))
    look(request.config, request.backend.name)
    _quiet(request.backend, verbose)
    return _train.train(request, progress, verbose=verbose)


def evaluate(
    *,
    backend: str | None = None,
    config: str | Path | None = None,
    progress: Progress = SILENT,
    verbose: bool = False,
    **options: Any,
) -> EvaluationResult:
    """Score a model on a validation split; takes the options of `EvaluateConfig`.

    Raises:
        ClmError: an option, the data, the model or the backend cannot be used as requested.
    """
    request = resolve.evaluation(from_arguments(options), file=config, backend=get_backend(backend))
    look(request.config, request.backend.name)
    _quiet(request.backend, verbose)
    result = _evaluate.evaluate(request, progress, verbose=verbose)
    assert result is not None  # Without arguments for a launcher, all processes are on this machine.
    return result


def generate(
    prompt: str,
    *,
    backend: str | None = None,
    config: str | Path | None = None,
    progress: Progress = SILENT,
    verbose: bool = False,
    **options: Any,
) -> GenerationResult:
    """Continue a prompt; takes the options of `GenerateConfig`.

    Raises:
        ClmError: an option, the model or the backend cannot be used as requested.
    """
    request = resolve.generation(from_arguments(options), file=config, backend=get_backend(backend))
    look(request.config, request.backend.name)
    _quiet(request.backend, verbose)
    return _generate.generate(request, prompt, progress)


def parity(*, config: str | Path | None = None, progress: Progress = SILENT, **options: Any) -> ParityResult:
    """Train with two backends and compare them; takes the options of `ParityConfig`, and `python={"NAME": PATH}`.

    Raises:
        ClmError: an option, the data, the model, a backend or the output folder cannot be used as requested.
    """
    request = resolve.parity(from_arguments(options), file=config)
    look(request.config)
    return compare(request, progress)


def merge_adapter(run: str | Path, *, progress: Progress = SILENT, **options: Any) -> MergeResult:
    """Make a whole model of an adapter and the model that it belongs to; takes the options of `MergeConfig`.

    Raises:
        ClmError: there is no adapter, it or its model cannot be read, or the output folder is there already.
    """
    return _merge.merge_adapter(Path(run), resolve.merging(from_arguments(options)), progress)


def prepare(*, config: str | Path | None = None, progress: Progress = SILENT, **options: Any) -> PreparationResult:
    """Tokenize data into a folder that every backend reads; takes the options of `PrepareConfig`.

    Raises:
        ClmError: an option, the data, the tokenizer or the output folder cannot be used as requested.
    """
    request = resolve.preparation(from_arguments(options), file=config)
    look(request)
    return _prepare.prepare(request, progress)


def inspect(folder: str | Path, **options: Any) -> InspectionResult:
    """Describe a folder of prepared data; takes the options of `InspectConfig`.

    Raises:
        ClmError: an option cannot be used as asked, or there are no prepared data in the folder.
    """
    return _inspect.inspect(Path(folder), resolve.inspection(from_arguments(options)))


def verify(folder: str | Path, *, progress: Progress = SILENT) -> VerificationResult:
    """Check every file of a run, a checkpoint or prepared data against its checksum.

    What is damaged raises nothing; the returned `state` says so, and the `faults` of each part.

    Raises:
        ClmError: the folder is none of them.
    """
    return _verify.verify(Path(folder), progress)


def push(run: str | Path, *, progress: Progress = SILENT, **options: Any) -> Publication:
    """Publish a finished run on the Hub, or continue its upload; takes the options of `PushConfig`.

    A failed upload raises nothing and leaves the run as it is; the returned `state` says so.

    Raises:
        ClmError: an option cannot be used as requested, or there is no finished run in the folder.
    """
    return pushing.push(Path(run), resolve.publication(from_arguments(options)), progress)


def _quiet(backend: Backend, verbose: bool) -> None:
    if not verbose:
        backend.quiet()
