"""Commands on several devices and machines, to their end, whatever comes in between: `nox -s scale`."""

import json
import os
import signal
import subprocess
import sys

import pytest
from safetensors.numpy import load_file
from support.started import OPTIONS, clm, launcher_of, start, wait_for_end, wait_for_step, workers_of

WHEN = ("--eval-strategy", "steps", "--eval-steps", "6", "--save-strategy", "steps", "--save-steps", "4")
TRAIN = clm("--backend", "pt", "train", *OPTIONS, *WHEN)
SHORT = [*TRAIN, "--max-steps", "12"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
BOUNDS = {"loss": 1e-6, "grad_norm": 2e-6, "eval_loss": 1e-7}


def done(command, code=0):
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert found.returncode == code, found.stderr
    return found


def history(run):
    lines = map(json.loads, (run / "history.jsonl").read_text(encoding="utf-8").splitlines())
    return [{name: line[name] for name in ("step", *BOUNDS) if name in line} for line in lines]


def assert_same_curve(one, other):
    for before, after in zip(history(one), history(other), strict=True):
        assert after == {name: pytest.approx(value, rel=BOUNDS.get(name)) for name, value in before.items()}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    run = tmp_path_factory.mktemp("two") / "run"
    done([*SHORT, "--nproc-per-node", "2", "--output-dir", str(run)])
    return run


def test_two_machines_make_the_run_of_two_processes_on_one(two, tmp_path):
    command = [*SHORT, "--nproc-per-node", "1", "--output-dir", str(tmp_path / "run"), "--", "--nnodes", "2"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:29517", "--rdzv-id", "two"]
    machines = [start(command) for _ in range(2)]
    for machine in machines:
        _, err = machine.communicate(timeout=200)
        assert machine.returncode == 0, err
    assert_same_curve(two, tmp_path / "run")


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("step", [2, 5, 9])
def test_a_process_that_is_killed_is_started_again_and_the_run_ends_as_the_others(rank, step, two, tmp_path):
    run = tmp_path / "run"
    again = ["--resume-from-checkpoint", "auto", "--nproc-per-node", "2", "--output-dir", str(run)]
    process = start([*SHORT, *again, "--", "--max-restarts", "3"])
    wait_for_step(process, run, step)
    os.kill(workers_of(process)[rank], signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert history(run) == history(two)
    one, other = (load_file(folder / "model.safetensors") for folder in (run, two))
    assert all((one[name] == other[name]).all() for name in other)


def test_the_file_stop_ends_all_processes_of_torchrun_and_the_run_is_resumed_on_three(two, tmp_path):
    run = tmp_path / "run"
    process = start([*TORCHRUN, *SHORT[1:], "--output-dir", str(run)])
    wait_for_step(process, run, 5)
    (run / "stop").touch()
    _, err = process.communicate(timeout=200)
    assert (process.returncode != 0, err.count("to resume: clm")) == (True, 1)
    done(clm("--backend", "pt", "train", "--resume-from-checkpoint", str(run), "--nproc-per-node", "3"))
    assert [line["step"] for line in history(run)] == [line["step"] for line in history(two)]


@pytest.mark.parametrize("which", ["command", "launcher"])
def test_no_process_is_left_once_what_started_it_is_killed(which, tmp_path):
    process = start([*TRAIN, "--max-steps", "100000", "--nproc-per-node", "2", "--output-dir", f"{tmp_path}/run"])
    wait_for_step(process, tmp_path / "run", 3)
    pids = workers_of(process)
    os.kill(process.pid if which == "command" else launcher_of(process), signal.SIGKILL)
    process.communicate(timeout=60)
    wait_for_end(pids)


@pytest.mark.parametrize("arguments", [("--warmup-steps", "99"), ("--block-size", "500"), ("--text-column", "absent")])
def test_an_error_of_all_processes_of_torchrun_is_said_once_and_nothing_is_written(arguments, tmp_path):
    found = done([*TORCHRUN, *SHORT[1:], *arguments, "--output-dir", f"{tmp_path}/run"], code=1)
    assert found.stderr.count("clm: error:") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_on_two_devices_has_the_score_of_one(two):
    score = clm("--backend", "pt", "--json", "evaluate", "--model-name-or-path", str(two))
    one, other = (json.loads(done([*score, "--nproc-per-node", devices]).stdout)["metrics"] for devices in ("1", "2"))
    assert other == pytest.approx(one, rel=1e-9)


def test_what_a_training_on_two_devices_prints_comes_once(tmp_path):
    found = done([*SHORT, "--nproc-per-node", "2", "--output-dir", f"{tmp_path}/run"])
    assert found.stderr.count("a step: 7 blocks = 2 devices x 2 batches of up to 2") == 1
    assert found.stdout.count("written") == 1
