"""Runs one training on two backends, each in its own process, and compares them step by step."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from clm_core import durable, options
from clm_core.comparison.side import ARCHITECTURE, RECORD, REQUEST, train_config
from clm_core.config import ParityConfig
from clm_core.data.manifest import TRAIN
from clm_core.errors import BackendError, DiskError, OptionError
from clm_core.inputs import check_type, check_undamaged, model_to_train, prepared_for
from clm_core.launch.devices import check_alone
from clm_core.marker import PREFIX
from clm_core.models.finite import MODELS
from clm_core.models.tokenizers import load_tokenizer
from clm_core.options.resolve import ParityRequest
from clm_core.record import CURVE
from clm_core.results import Difference, ParityResult
from clm_core.runs import output
from clm_core.runs.plot import draw_losses
from clm_core.screen.exit_codes import ExitCode
from clm_core.screen.progress import Progress

LOSS, GRADIENT, WEIGHTS, LOGITS, EVALUATION = "loss", "gradient norm", "weights", "logits", "evaluation loss"

TOLERANCES = {LOSS: 2e-5, GRADIENT: 1e-3, WEIGHTS: 1e-3, LOGITS: 1e-3, EVALUATION: 2e-5}
"""Relative differences that count as agreement, of float32 computed in another order; `--tolerance` multiplies them."""

SAME_WEIGHTS = {LOGITS: 1e-5, EVALUATION: 1e-6}
"""The same at step 0, where both sides have the same weights."""

OTHER_HEADS = ("summary", "classifier")
"""Prefixes of settings for heads that a causal language model does not have."""


LONGEST_END = 10.0
"""Seconds that a side may take to end when it is told to."""


class SideError(RuntimeError):
    """A side of the comparison failed unexpectedly; its traceback is in the message."""


def compare(request: ParityRequest, progress: Progress) -> ParityResult:
    """Train with both backends from the same weights on the same blocks, and compare the results.

    Raises:
        ClmError: the options, the data, the model, a backend or an interpreter cannot be used as requested.
    """
    for backend in request.backends:
        check_alone(backend, "parity")
    names = [backend.name for backend in request.backends]
    with _folder(request.config) as folder:
        dropout = _write_request(request, folder, progress)
        for name in names:
            _run_side(name, request.pythons.get(name, sys.executable), folder, progress)
        records = [json.loads((folder / name / RECORD).read_text(encoding="utf-8")) for name in names]
        _check_versions(names, records)
        found = list(differences(folder, names, records, request.config.tolerance))
        both = dict(zip(names, records, strict=True))
        losses = {name: tuple(step["loss"] for step in record["steps"]) for name, record in both.items()}
        if request.config.output_dir:
            draw_losses(folder / CURVE, {name: list(enumerate(values, 1)) for name, values in losses.items()})
    return ParityResult(
        backends=tuple(names),
        versions={name: record["versions"] for name, record in both.items()},
        steps=len(records[0]["steps"]),
        dropout=dropout,
        losses=losses,
        differences=tuple(found),
        parted=next((difference for difference in found if not difference.tolerated), None),
        output_dir=Path(request.config.output_dir) if request.config.output_dir else None,
    )


def without_dropout(architecture: Any) -> dict[str, float]:
    """Set every dropout of a configuration to 0, since frameworks draw differently; return what they were."""
    found = {
        name: value
        for name, value in vars(architecture).items()
        if "drop" in name and not name.startswith(OTHER_HEADS) and isinstance(value, float) and value > 0
    }
    architecture.update(dict.fromkeys(found, 0.0))
    return found


def differences(folder: Path, names: list[str], records: list[dict[str, Any]], factor: float) -> Iterator[Difference]:
    """All that can be compared, in the order of the steps."""
    pairs = {one["step"]: (one, other) for one, other in zip(*(side["steps"] for side in records), strict=True)}
    scores = [{score["step"]: score["loss"] for score in record["evaluations"]} for record in records]
    for step in range(len(pairs) + 1):
        if step:
            one, other = pairs[step]
            yield _of_numbers(LOSS, step, one["loss"], other["loss"], factor)
            norms = one["grad_norm"], other["grad_norm"]
            if None not in norms:
                yield _of_numbers(GRADIENT, step, *norms, factor)
        checkpoints = [folder / name / f"{PREFIX}{step}" for name in names]
        if all(path.is_dir() for path in checkpoints):
            yield _of_weights(step, _weights(checkpoints[0]), _weights(checkpoints[1]), factor)
        files = [folder / name / f"logits-{step}.npy" for name in names]
        if all(path.is_file() for path in files):
            yield _of_logits(step, np.load(files[0]), np.load(files[1]), factor)
        if all(step in score for score in scores):
            yield _of_numbers(EVALUATION, step, scores[0][step], scores[1][step], factor)


@contextmanager
def _folder(config: ParityConfig) -> Iterator[Path]:
    """The output folder, or a temporary one."""
    if config.output_dir:
        folder = Path(config.output_dir)
        output.check(folder, overwrite=False, resume_from=None)
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            yield folder.absolute()
        except BaseException:  # What there is of a comparison is of no use, and would be in the way of the next one.
            for path in folder.iterdir():
                durable.remove(path)
            if is_new:
                folder.rmdir()
            raise
    else:
        with tempfile.TemporaryDirectory(prefix="clm-parity-") as temporary:
            yield Path(temporary)


def _write_request(request: ParityRequest, folder: Path, progress: Progress) -> dict[str, float]:
    """Prepare the data, and write what both sides read."""
    config = train_config(request.config)
    check_undamaged(config, progress)
    tokenizer = load_tokenizer(config)
    model = model_to_train(config, tokenizer, progress)
    for backend in request.backends:
        check_type(model, backend)
    prepared = prepared_for(config, model, tokenizer, progress, need=TRAIN)
    dropout = without_dropout(model.architecture)
    if request.config.lora_dropout:
        dropout["lora_dropout"] = request.config.lora_dropout
    if dropout:
        was = ", ".join(f"{name} {value:g}" for name, value in dropout.items())
        progress.say(f"dropout is set to 0, because each framework draws it differently (was: {was})")
    model.architecture.save_pretrained(folder / ARCHITECTURE)
    name = request.config.model_name_or_path
    shared = replace(
        request.config,
        lora_dropout=0.0,
        backends=tuple(backend.name for backend in request.backends),
        prepared=str(prepared.folder.absolute()),
        model_name_or_path=str(Path(name).absolute()) if name and Path(name).exists() else name,
    )
    durable.replace(folder / REQUEST, options.to_yaml(shared, request.options))
    return dropout


def _run_side(name: str, python: str, folder: Path, progress: Progress) -> None:
    command = [python, "-m", "clm_core.comparison.side", name, str(folder)]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace"
            )
        except OSError as error:
            raise OptionError(f"--python-{name} {python} cannot be run: {error.strerror or error}") from None
        with _ended_with_block(process):
            for line in process.stdout or ():
                progress.say(f"{name}: {line.rstrip()}")
        errors.seek(0)
        if process.returncode:
            raise _failure(name, python, process.returncode, errors.read())


@contextmanager
def _ended_with_block(process: subprocess.Popen[str]) -> Iterator[None]:
    """Wait for a side; if the block is left early, have it end, which it does when its standard input is closed."""
    with process:
        try:
            yield
        except BaseException:
            if process.stdin:
                process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(LONGEST_END)
            process.kill()
            raise


def _failure(name: str, python: str, code: int, said: str) -> Exception:
    said = said.strip()
    last = said.splitlines()[-1] if said else ""
    if code == ExitCode.DISK_FULL:
        return DiskError(f"backend {name}: {last}")
    if code == ExitCode.INPUT and last == said:
        where = "" if python == sys.executable else f" in {python}"
        return BackendError(f"backend {name}{where}: {last}")
    if "No module named" in last:
        return BackendError(f"backend {name}: {python} does not have this version of clm ({last}): install it there")
    how = f"backend {name} failed in {python} with exit code {code}"
    return SideError(f"{how}: {last}\n\n{said}") if said else BackendError(how)


def _check_versions(names: list[str], records: list[dict[str, Any]]) -> None:
    found = [record["versions"]["clm"] for record in records]
    if len(set(found)) > 1:
        both = " and ".join(f"{name} {version}" for name, version in zip(names, found, strict=True))
        raise BackendError(f"the interpreters have different versions of clm ({both}): install the same version")


def _of_numbers(quantity: str, step: int, one: float, other: float, factor: float) -> Difference:
    difference = abs(one - other) / abs(one) if one else abs(other)
    return _difference(quantity, step, difference, factor, values=(one, other))


def _of_logits(step: int, one: Any, other: Any, factor: float) -> Difference:
    """The largest difference of a logit, relative to the largest logit."""
    if one.shape != other.shape:
        return _difference(LOGITS, step, float("inf"), factor, where=f"shapes {one.shape} and {other.shape}")
    return _difference(LOGITS, step, float(np.abs(one - other).max() / np.abs(one).max()), factor)


def _of_weights(step: int, one: dict[str, Any], other: dict[str, Any], factor: float) -> Difference:
    """The norm of the difference of all weights, relative to the norm of all weights; the tensor with most of it."""
    if alone := sorted(one.keys() ^ other.keys()):
        return _difference(WEIGHTS, step, float("inf"), factor, where=f"only one side has {alone[0]}")
    squares = {name: float(np.square(one[name].astype(float) - other[name]).sum()) for name in one}
    whole = sum(float(np.square(array.astype(float)).sum()) for array in one.values())
    worst = max(squares, key=squares.__getitem__)
    return _difference(WEIGHTS, step, (sum(squares.values()) / whole) ** 0.5, factor, where=f"largest in {worst}")


def _difference(quantity: str, step: int, relative: float, factor: float, **more: Any) -> Difference:
    tolerances = TOLERANCES if step else {**TOLERANCES, **SAME_WEIGHTS}
    tolerance = factor * tolerances[quantity]
    # Not-a-number does not agree with anything.
    tolerated = bool(relative <= tolerance)
    return Difference(quantity=quantity, step=step, relative=relative, tolerance=tolerance, tolerated=tolerated, **more)


def _weights(checkpoint: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    tensors: dict[str, Any] = {}
    for file in sorted(checkpoint.glob(MODELS)):
        tensors |= load_file(file)
    return tensors
