"""What every backend has to do on several devices, as tests: the same run as on one, or an error before anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from clm_core.backend import Backend
from clm_core.record import HISTORY_FILE, MEASURED
from clm_core.testing.applying import where
from clm_core.testing.tiny import read_weights

SIZES = "n_layer=2,n_embd=16,n_head=2,n_positions=32,resid_pdrop=0,embd_pdrop=0,attn_pdrop=0"

OPTIONS = (
    *("--config", "sample", "--config-overrides", SIZES, "--block-size", "32", "--learning-rate", "1e-3"),
    *("--max-train-samples", "8", "--max-eval-samples", "3", "--train-batch-size", "7", "--max-steps", "8"),
    *("--per-device-train-batch-size", "2", "--eval-strategy", "steps", "--eval-steps", "4", "--logging-steps", "1"),
)
"""A training whose steps are not the same number of blocks for each of two devices."""

WITHOUT_GPUS = {"CUDA_VISIBLE_DEVICES": "-1", "HIP_VISIBLE_DEVICES": "-1"}
"""The environment in which a process has no GPU: a machine has seldom two, and its CPU stands for any number."""

TOLERANCES = {"loss": 1e-6, "grad_norm": 2e-6, "eval_loss": 1e-7, "eval_accuracy": 0.0}
"""What may differ, relatively."""


class ParallelContract:
    """The part of the contract that is about it."""

    backend: ClassVar[Backend]

    @where(lambda backend: backend.parallel is None)
    def test_more_than_one_device_is_refused_before_anything_is_written(self, tmp_path: Path) -> None:
        found = _clm(self.backend, "train", "--nproc-per-node", "2", "--output-dir", str(tmp_path / "run"))
        assert (found.returncode, list(tmp_path.iterdir())) == (2, [])
        assert "one device" in found.stderr

    @where(lambda backend: backend.parallel is not None)
    def test_two_devices_make_the_run_of_one(self, tmp_path: Path) -> None:
        one, two = (_run(self.backend, tmp_path / number, number) for number in ("1", "2"))
        assert [line.keys() for line in two] == [line.keys() for line in one]
        for before, after in zip(one, two, strict=True):
            for name, tolerance in TOLERANCES.items():
                assert (name in before) == (name in after)
                assert after.get(name, 0.0) == pytest.approx(before.get(name, 0.0), rel=tolerance)
        of_one, of_two = (read_weights(tmp_path / number) for number in ("1", "2"))
        assert {name: it.shape for name, it in of_two.items()} == {name: it.shape for name, it in of_one.items()}
        assert {path.name for path in (tmp_path / "2").iterdir()} == {path.name for path in (tmp_path / "1").iterdir()}


def _run(backend: Backend, folder: Path, devices: str) -> list[dict[str, Any]]:
    found = _clm(backend, "train", *OPTIONS, "--nproc-per-node", devices, "--output-dir", str(folder))
    assert found.returncode == 0, found.stderr
    assert f"{devices} device" in found.stderr
    lines = (folder / HISTORY_FILE).read_text(encoding="utf-8").splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in MEASURED} for line in lines]


def _clm(backend: Backend, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clm_core", "--backend", backend.name, *arguments]
    environment = {**os.environ, **WITHOUT_GPUS}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
