"""TensorFlow, with either Keras, on 1 to 3 devices and in two workers: one curve, also where they change."""

import json
import os
import signal
import socket
import subprocess

import pytest
from support.started import clm, start, wait_for_step

SIZES = "n_layer=2,n_embd=64,n_head=2,n_positions=64,resid_pdrop=0,embd_pdrop=0,attn_pdrop=0"
OPTIONS = (
    *("--config", "sample", "--config-overrides", SIZES, "--block-size", "64", "--learning-rate", "1e-3"),
    *("--max-train-samples", "30", "--max-eval-samples", "6", "--train-batch-size", "8"),
    *("--per-device-train-batch-size", "2", "--max-grad-norm", "0.3", "--logging-steps", "1"),
    *("--eval-strategy", "steps", "--eval-steps", "8", "--save-strategy", "steps", "--save-steps", "12"),
    *("--save-total-limit", "none"),
)
STEPS = ("--max-steps", "16")
BOUNDS = {"loss": 1e-6, "grad_norm": 2e-6, "eval_loss": 1e-7}


def train(run, *more, backend="tf", sizes=SIZES):
    options = [sizes if each == SIZES else each for each in OPTIONS]
    command = clm("--backend", backend, "train", *options, *STEPS, "--output-dir", str(run), *more)
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert found.returncode == 0, found.stderr
    return run


def workers(run, *more):
    """Start two workers on this machine."""
    ports = [free_port(), free_port()]
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    command = clm("--backend", "tf", "train", *OPTIONS, "--output-dir", str(run), *more)
    return [
        start(command, TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}))
        for index in range(2)
    ]


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def history(run, after=-1):
    lines = map(json.loads, (run / "history.jsonl").read_text(encoding="utf-8").splitlines())
    return [{name: line[name] for name in ("step", *BOUNDS) if name in line} for line in lines if line["step"] > after]


def assert_same_curve(one, other, after=-1):
    for name, bound in BOUNDS.items():
        before, later = ([line[name] for line in history(run, after) if name in line] for run in (one, other))
        print(name, max(abs(1 - new / old) for new, old in zip(later, before, strict=True)))
        assert later == pytest.approx(before, rel=bound)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scale")


@pytest.fixture(scope="module")
def alone(folder):
    return train(folder / "alone")


@pytest.fixture(scope="module")
def two(folder):
    return train(folder / "two", "--nproc-per-node", "2")


def test_two_devices_make_the_run_of_one(alone, two):
    assert_same_curve(alone, two)


def test_three_devices_make_the_run_of_one(alone, folder):
    assert_same_curve(alone, train(folder / "three", "--nproc-per-node", "3"))


def test_two_workers_make_the_run_of_one(alone, folder):
    for process in workers(folder / "workers", *STEPS):
        _, err = process.communicate(timeout=400)
        assert process.returncode == 0, err
    assert_same_curve(alone, folder / "workers")


def test_devices_of_keras_make_the_run_of_one_and_resume_on_another_number(folder):
    one, two, three = (train(folder / f"keras-{n}", "--nproc-per-node", n, backend="keras") for n in ("1", "2", "3"))
    assert_same_curve(one, two)
    assert_same_curve(one, three)
    for checkpoint, devices in ((two, "1"), (one, "2"), (two, "3")):
        more = ["--resume-from-checkpoint", str(checkpoint / "checkpoint-12"), "--nproc-per-node", devices]
        resumed = train(folder / f"{checkpoint.name}-{devices}", *more, backend="keras")
        assert_same_curve(one, resumed, after=12)


def test_two_devices_of_keras_resume_with_dropout_as_if_they_had_not_stopped(folder):
    of_two = {"backend": "keras", "sizes": SIZES.replace("pdrop=0", "pdrop=0.1")}
    whole = train(folder / "dropout", "--nproc-per-node", "2", **of_two)
    more = ["--resume-from-checkpoint", str(whole / "checkpoint-12")]
    resumed = train(folder / "dropout-resumed", "--nproc-per-node", "2", *more, **of_two)
    assert history(resumed, after=12) == history(whole, after=12)
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.parametrize("backend", ["tf", "keras"])
def test_an_evaluation_on_two_devices_has_the_score_of_one(backend, two):
    score = clm("--backend", backend, "--json", "evaluate", "--model-name-or-path", str(two), "--nproc-per-node")
    runs = [subprocess.run([*score, devices], capture_output=True, text=True, check=True) for devices in ("1", "2")]
    one, other = (json.loads(found.stdout)["metrics"] for found in runs)
    assert other == pytest.approx(one, rel=1e-8)


@pytest.mark.parametrize(("first", "then"), [("1", "2"), ("2", "1")])
def test_another_number_of_devices_resumes(first, then, alone, two, folder):
    checkpoint = {"1": alone, "2": two}[first] / "checkpoint-12"
    more = ["--resume-from-checkpoint", str(checkpoint), "--nproc-per-node", then]
    assert_same_curve(alone, train(folder / f"{first}-{then}", *more), after=12)


@pytest.mark.parametrize("engine", [(), ("--pt-fsdp",)], ids=["DDP", "FSDP2"])
def test_two_devices_of_pytorch_resume_what_two_of_tensorflow_have_begun(engine, two, folder):
    more = ["--resume-from-checkpoint", str(two / "checkpoint-12"), "--nproc-per-node", "2", *engine]
    assert_same_curve(two, train(folder / f"pt{len(engine)}", *more, backend="pt"), after=12)


def test_a_worker_that_is_killed_ends_the_other(folder):
    one, other = workers(folder / "killed", "--max-steps", "100000")
    wait_for_step(one, folder / "killed", 3)
    os.kill(other.pid, signal.SIGKILL)
    _, err = one.communicate(timeout=60)
    assert one.returncode not in (0, None), err
    assert err.count("clm: error: another of the processes that train ended") == 1


def test_a_signal_to_one_worker_ends_both_with_one_checkpoint(folder):
    run = folder / "asked"
    one, other = workers(run, "--max-steps", "100000")
    wait_for_step(one, run, 3)
    other.send_signal(signal.SIGTERM)
    (_, err), _ = one.communicate(timeout=60), other.communicate(timeout=60)
    assert (one.returncode, other.returncode) == (143, 143), err
    assert err.count("to resume: clm") == 1
