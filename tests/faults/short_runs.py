"""Short runs with everything in them, of each backend: how they are started, and what two of them must share."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import injection
from injection import NOTHING, Fault

from clm_core.record import MEASURED

HERE = Path(__file__).parent
DOCUMENTS = [f"Why is sky number {number} so blue? Because light scatters {number * 7} times." for number in range(24)]
SETTINGS = {
    "train_file": "../corpus.jsonl",
    "config_name": "../tiny",
    "tokenizer_name": "sample",
    "block_size": 16,
    "max_eval_samples": 4,
    "max_steps": 4,
    "per_device_train_batch_size": 2,
    "save_strategy": "steps",
    "save_steps": 2,
    "save_total_limit": 1,  # So that a checkpoint is removed.
    "eval_strategy": "steps",
    "eval_steps": 2,
    "logging_steps": 3,  # So that a checkpoint has losses that no line of the history has.
}
TINY = {"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 1, "n_positions": 16}
"""The configuration of the model; it has dropout, unless it is told not to."""

TIMES = ("seconds", *MEASURED, "versions")
NOT_COMPARED = ("trainer_state.json", ".lock")
"""What one of the frameworks keeps for itself, and a lock, which names a process."""

LINES = 4
PATIENCE = 300.0
"""Seconds after which a run hangs."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | None
    """Its exit code, or minus the signal that ended it; None if it did not end by itself."""
    out: str
    err: str
    log: list[str]
    """The operations and the events of the training: "3 rename PATH", "- StepDone 1"."""
    seconds: float
    cpu: float

    @property
    def operations(self) -> list[str]:
        """The operations alone, without their numbers."""
        return [line.split(" ", 1)[1] for line in self.log if line[0] != "-"]

    def events_before(self, operation: int, name: str) -> int:
        """How many events of a name came before an operation."""
        before = self.log[: next((i for i, line in enumerate(self.log) if line.startswith(f"{operation} ")), None)]
        return sum(line.startswith(f"- {name} ") for line in before)


@dataclass
class Laboratory:
    """A place for runs of one backend, and the server that runs them."""

    backend: str
    folder: Path
    server: subprocess.Popen[str]
    eager: bool = True
    cases: int = 0
    warm: bool = False
    """Whether a command has been run to its end, from which the server learns what to import for the others."""
    made: dict[str, Any] = field(default_factory=dict)
    """What several cases start from, or are compared with."""

    def case(self, template: Path | None = None) -> Path:
        """A new folder to work in, which holds what a template does."""
        self.cases += 1
        folder = self.folder / f"case-{self.cases}"
        if template:
            shutil.copytree(template, folder, symlinks=True)
        else:
            folder.mkdir()
        return folder

    def train(self, case: Path, fault: Fault = NOTHING, kill_after: float | None = None, **changed: Any) -> Ended:
        """The command, in a case's folder; it is the same one each time, and goes on where there is something."""
        return self.run(case, self.command(**changed), fault, kill_after)

    def command(self, **changed: Any) -> list[str]:
        """The arguments of the run; `changed` are other options, None to leave one out, True for a flag."""
        settings = {**SETTINGS, "output_dir": "run", "resume_from_checkpoint": "auto", **changed}
        if self.backend != "bigram":
            settings = {"learning_rate": 1e-3, **settings}
        flags = {f"--{name.replace('_', '-')}": value for name, value in settings.items() if value is not None}
        words = [text for flag, value in flags.items() for text in ([flag] if value is True else [flag, str(value)])]
        return ["--backend", self.backend, "train", *words]

    def run(
        self, case: Path, argv: list[str], fault: Fault = NOTHING, kill_after: float | None = None, **more: str
    ) -> Ended:
        """A command of clm, in a process of its own."""
        printed, log = self.folder / "printed", self.folder / "log"
        log.unlink(missing_ok=True)
        environment = {**os.environ, **_surroundings(self.folder), **injection.loading(), **more}
        environment |= fault.environment(case, log) | ({"FAULT_EAGER": "1"} if self.eager and self._has_graphs else {})
        if not self.warm and fault == NOTHING and kill_after is None:
            environment["FAULT_LEARN"], self.warm = "1", True
        work = {"argv": argv, "folder": str(case), "environment": environment, "printed": str(printed)}
        print(json.dumps([work, {"kill_after": kill_after, "patience": PATIENCE}]), file=self.server.stdin, flush=True)
        answer = json.loads(self.server.stdout.readline())
        texts = [printed.with_suffix(f".{name}").read_text(errors="replace") for name in ("out", "err")]
        return Ended(
            answer["code"],
            *texts,
            log.read_text().splitlines() if log.exists() else [],
            answer["seconds"],
            answer["cpu"],
        )

    @property
    def _has_graphs(self) -> bool:
        return self.backend in ("tf", "keras")


@contextmanager
def serving(backends: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A server that runs commands of these backends, for as long as the block takes; its own messages go to a file."""
    command, messages = [sys.executable, HERE / "fork_server.py", *backends], folder / "server.txt"
    environment = {**os.environ, **_surroundings(folder), **injection.loading()}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with messages.open("w") as errors, subprocess.Popen(command, stderr=errors, env=environment, **pipes) as server:
        if server.stdout.readline() != "ready\n":
            raise RuntimeError(messages.read_text())
        yield server
        with suppress(BrokenPipeError):
            server.stdin.close()


def laboratory(backend: str, folder: Path, server: subprocess.Popen[str], *, eager: bool = True) -> Laboratory:
    """A laboratory in an empty folder."""
    lines = "".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS)
    (folder / "corpus.jsonl").write_text(lines, encoding="utf-8")
    (folder / "tiny").mkdir()
    (folder / "tiny" / "config.json").write_text(json.dumps(TINY), encoding="utf-8")
    return Laboratory(backend, folder, server, eager)


def _surroundings(folder: Path) -> dict[str, str]:
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    return {
        "CLM_CACHE": str(folder / "cache"),
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **dict.fromkeys(threads, "1"),
    }


def state(run: Path) -> dict[str, Any]:
    """All that a run has come to, but for times: of each file, by its path, what must be the same in another."""
    paths = sorted(path for path in run.rglob("*") if path.name not in NOT_COMPARED)
    return {str(path.relative_to(run)): _content(path) for path in paths}


def _content(path: Path) -> Any:
    if path.is_symlink() or path.is_dir():
        return "a link" if path.is_symlink() else "a folder"
    if path.name == "history.jsonl":
        return [_without_times(json.loads(line)) for line in path.read_text().splitlines()]
    if path.name in ("results.json", "checkpoint.json", "checksums.json"):
        return _without_times(json.loads(path.read_text()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _without_times(value: Any) -> Any:
    """A record without times, and without the sums of what has times in it."""
    if isinstance(value, list):
        return [_without_times(item) for item in value]
    if not isinstance(value, dict):
        return value
    sums = {name: sorted(value[name]) for name in ("files",) if name in value}
    return {key: _without_times(item) for key, item in value.items() if key not in (*TIMES, "sha256")} | sums


def differences(found: Any, wanted: Any) -> list[str]:
    """What two states do not share, a line each for the first ones."""
    lines = list(_differences(found, wanted))
    return [*lines[:LINES], *([f"and {len(lines) - LINES} more"] if len(lines) > LINES else [])]


def _differences(found: Any, wanted: Any, place: str = "") -> Iterator[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in sorted(found.keys() | wanted.keys()):
            yield from _differences(found.get(name), wanted.get(name), f"{place} {name}".lstrip())
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
            yield from _differences(one, other, f"{place} {number}")
    elif found != wanted:
        yield f"{place}: {_short(found)} instead of {_short(wanted)}"


def _short(value: Any) -> str:
    """A part of a content, or "nothing" where there is no such file."""
    value = "nothing" if value is None else value
    return str(value) if len(str(value)) < 40 else f"{str(value)[:37]}..."
