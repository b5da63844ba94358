"""Commands that start several processes: one message, one checkpoint, and one end for all."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from support.started import OPTIONS, clm, start, wait_for_end, wait_for_step, workers_of

TRAIN = clm("--backend", "pt", "train", *OPTIONS, "--eval-strategy", "no", "--nproc-per-node", "2")
SHORT = [*TRAIN, "--max-steps", "12", "--save-strategy"]


def long_training(folder, *more):
    endless = ("--max-steps", "100000", "--save-strategy", "no")
    return start([*TRAIN, *endless, "--output-dir", str(folder), *more])


@pytest.mark.parametrize("to", ["command", "process"])
def test_all_end_at_the_same_step_with_one_checkpoint_and_one_message(to, tmp_path):
    folder = tmp_path / "run"
    process = long_training(folder)
    wait_for_step(process, folder, 3)
    pids = workers_of(process)
    assert len(pids) == 2
    os.kill(process.pid if to == "command" else pids[1], signal.SIGTERM)
    out, err = process.communicate(timeout=90)
    assert (process.returncode, out) == (143, "")
    (checkpoint,) = folder.glob("checkpoint-*")
    assert err.count("to resume: clm") == err.count(checkpoint.name) == 1
    wait_for_end(pids)


def test_all_end_at_the_same_step_when_their_time_is_up(tmp_path):
    process = long_training(tmp_path / "run", "--max-train-time", "1s")
    out, _ = process.communicate(timeout=90)
    result = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (process.returncode, out.count("to resume: clm"), result["stopped_by"]) == (0, 1, "time")
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == [f"checkpoint-{result['steps']}"]


def test_a_process_that_is_killed_ends_the_others_with_one_message(tmp_path):
    process = long_training(tmp_path / "run")
    wait_for_step(process, tmp_path / "run", 3)
    pids = workers_of(process)
    os.kill(pids[1], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert err.count("clm: error") == 1
    # Said by the other one, or, if the launcher has noticed it first, by the command.
    assert re.search("(another|one) of the processes", err)
    wait_for_end(pids)


def test_what_is_wrong_with_an_option_is_said_once_by_torchruns_processes_and_nothing_is_written(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    wrong = [*torchrun, *SHORT[1:], "no", "--output-dir", str(tmp_path / "run"), "--warmup-steps", "99"]
    found = subprocess.run(wrong, capture_output=True, text=True, check=False, timeout=90)
    assert found.stderr.count("clm: error: warmup_steps 99 is more than the 12 steps of this training") == 1
    assert (found.returncode != 0, list(tmp_path.iterdir())) == (True, [])
