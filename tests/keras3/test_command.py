"""`clm --backend keras`, in a process of its own, whatever else is installed beside it."""

import subprocess
import sys

SMALL = "n_layer=1,n_embd=16,n_head=2,n_positions=16"
OPTIONS = ["--config-overrides", SMALL, "--block-size", "16", "--max-steps", "1", "--max-train-samples", "20"]


def test_the_command_trains_and_frameworks_say_nothing(tmp_path):
    command = [sys.executable, "-m", "clm_core", "--backend", "keras", "train", "--config", "sample", *OPTIONS]
    done = subprocess.run(
        [*command, "--max-eval-samples", "4", "--output-dir", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model.safetensors").is_file()
    starts = ("prepar", "using prepared", "a step", "before training", "training", "step ", "checkpoint")
    assert [line for line in done.stderr.splitlines() if not line.startswith(starts)] == []
