"""Commands that start several processes: one message, one end for all, and a run that goes on as if alone."""

import json
import signal
import subprocess
import sys

import pytest
from safetensors.numpy import load_file
from support.started import OPTIONS, clm, start, wait_for_end, wait_for_step, workers_of

TRAIN = clm("--backend", "pt", "train", *OPTIONS, "--nproc-per-node", "2", "--save-strategy", "no")


def long_training(folder, *more):
    command = [each if each != "12" else "100000" for each in TRAIN]
    return start([*command, "--output-dir", str(folder), *more])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    found = subprocess.run([*TRAIN, "--output-dir", str(folder)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stderr.count("a step: 7 blocks = 2 devices x 2 batches of up to 2") == 1
    assert found.stdout.count("written") == 1
    return folder


@pytest.mark.parametrize(
    ("to", "code"), [("command", 143), ("second", 143), ("stop", 5)], ids=["to the command", "to a process", "by file"]
)
def test_all_end_at_the_same_step_with_one_checkpoint_and_one_message(to, code, tmp_path):
    folder = tmp_path / "run"
    process = long_training(folder)
    wait_for_step(process, folder, 3)
    pids = workers_of(process)
    assert len(pids) == 2
    match to:
        case "command":
            process.send_signal(signal.SIGTERM)
        case "second":
            subprocess.run(["kill", "-TERM", str(pids[1])], check=True)
        case "stop":
            (folder / "stop").touch()
    out, err = process.communicate(timeout=90)
    assert (process.returncode, out) == (code, "")
    (checkpoint,) = folder.glob("checkpoint-*")
    assert err.count("to go on: clm") == err.count(checkpoint.name) == 1
    wait_for_end(pids)


def test_a_process_that_is_killed_ends_the_others_with_one_message(tmp_path):
    process = long_training(tmp_path / "run")
    wait_for_step(process, tmp_path / "run", 3)
    pids = workers_of(process)
    subprocess.run(["kill", "-KILL", str(pids[1])], check=True)
    _, err = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert err.count("clm: error") == 1
    assert "another of the processes" in err
    wait_for_end(pids)


def test_processes_that_are_started_again_end_with_the_run_of_the_others(whole, tmp_path):
    folder = tmp_path / "run"
    slow = [*TRAIN[:-1], "steps", "--save-steps", "4", "--output-dir", str(folder)]
    process = start([*slow, "--resume-from-checkpoint", "auto", "--", "--max-restarts", "2"])
    wait_for_step(process, folder, 5)
    subprocess.run(["kill", "-KILL", str(workers_of(process)[0])], check=True)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    steps = [json.loads(line)["step"] for line in (folder / "history.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 13))
    one, other = (load_file(run / "model.safetensors") for run in (folder, whole))
    assert all((one[name] == other[name]).all() for name in other)


@pytest.mark.parametrize("launcher", ["clm", "torchrun"])
def test_what_is_wrong_with_an_option_is_said_once_and_nothing_is_written(launcher, tmp_path):
    wrong = [*TRAIN, "--output-dir", str(tmp_path / "run"), "--warmup-steps", "99"]
    if launcher == "torchrun":
        wrong = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *wrong[1:]]
    found = subprocess.run(wrong, capture_output=True, text=True, check=False, timeout=90)
    assert found.stderr.count("clm: error: warmup_steps and warmup_ratio cannot be combined: give one of them") == 1
    assert (found.returncode != 0, list(tmp_path.iterdir())) == (True, [])


def test_an_evaluation_on_two_devices_has_the_score_of_one(whole):
    scores = []
    for devices in ("1", "2"):
        command = clm("--backend", "pt", "--json", "evaluate", "--model-name-or-path", str(whole))
        found = subprocess.run(
            [*command, "--nproc-per-node", devices], capture_output=True, text=True, check=False, timeout=90
        )
        assert found.returncode == 0, found.stderr
        scores.append(json.loads(found.stdout)["metrics"])
    assert scores[1] == pytest.approx(scores[0], rel=1e-9)
