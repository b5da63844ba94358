"""A command of clm that starts processes: its workers, and what is left of them."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from support.waiting import wait_until

SMALL = "n_layer=1,n_embd=16,n_head=2,n_positions=32"

OPTIONS = (
    *("--config", "sample", "--config-overrides", SMALL, "--block-size", "32", "--learning-rate", "1e-3"),
    *("--max-train-samples", "8", "--max-eval-samples", "3", "--train-batch-size", "7"),
    *("--per-device-train-batch-size", "2", "--logging-steps", "1"),
)
"""A short training, with dropout."""


def clm(*arguments: str) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "clm_core", *arguments]


def start(command: Sequence[str], **environment: str) -> subprocess.Popen[str]:
    """Start a command, and keep what it prints."""
    env = {**os.environ, **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that a launcher has started for a command, in the order of their ranks."""
    found = [pid for pid in _descendants(process.pid) if b"LOCAL_RANK=" in _read(pid, "environ")]
    trainers = [pid for pid in found if b"clm_core" in _read(pid, "cmdline")]
    return sorted(trainers, key=lambda pid: _read(pid, "environ").split(b"\0LOCAL_RANK=")[1].split(b"\0")[0])


def launcher_of(process: subprocess.Popen[str]) -> int:
    """The launcher that a command has started."""
    return next(pid for pid in _descendants(process.pid) if b"clm_pt.launch" in _read(pid, "cmdline"))


def wait_for_step(process: subprocess.Popen[str], run: Path, step: int) -> None:
    """Return when the process has written the line about a step of its run."""
    file = run / "history.jsonl"

    def is_there() -> bool:
        assert process.poll() is None, process.communicate()
        return file.is_file() and f'"step": {step},' in file.read_text(encoding="utf-8")

    wait_until(is_there, seconds=120)


def wait_for_end(pids: Sequence[int]) -> None:
    """Return when none of these processes is left."""
    wait_until(lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists() and not _is_zombie(pid)], seconds=40)


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for each in [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]:
        if stat := _read(each, "stat"):
            children.setdefault(int(stat.rpartition(b")")[2].split()[1]), []).append(each)
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found[1:]


def _is_zombie(pid: int) -> bool:
    return _read(pid, "stat").rpartition(b")")[2].split()[:1] == [b"Z"]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # It has ended.
        return b""
