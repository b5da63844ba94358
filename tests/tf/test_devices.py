"""Devices that train together make the curve of one, whether they are of one process or of several."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import jobs, tf_devices
from support.tf_devices import OPTIONS, seen

from clm_core.backend import ALONE, World
from clm_core.errors import OptionError
from clm_tf.backend import TensorFlowBackend
from clm_tf.devices import find_world, grow_memory, peak_of_accelerator

SCRIPT = Path(tf_devices.__file__)


def of_workers(count, index, kind="worker"):
    """TF_CONFIG of one of them."""
    hosts = [f"127.0.0.1:{port}" for port in range(2222, 2222 + count)]
    return json.dumps({"cluster": {"worker": hosts}, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    ("config", "world"),
    [
        ("", ALONE),
        (of_workers(1, 0), ALONE),
        (of_workers(3, 2), World(rank=2, size=3)),
        ('{"cluster": {"chief": ["a"], "worker": ["b", "c"]}, "task": {"type": "chief", "index": 0}}', World(size=3)),
        (
            '{"cluster": {"chief": ["a"], "worker": ["b"]}, "task": {"type": "worker", "index": 0}}',
            World(rank=1, size=2),
        ),
    ],
)
def test_the_processes_are_those_that_the_environment_names(config, world, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    assert find_world(None) == find_world("1") == world


@pytest.mark.parametrize(("before", "after"), [(None, "true"), ("false", "false")])
def test_tensorflow_takes_memory_as_it_needs_it_unless_the_environment_says_otherwise(before, after, monkeypatch):
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH", raising=False)
    if before:
        monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", before)
    grow_memory()
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == after


def test_the_peak_is_that_of_the_gpu_that_needed_most(monkeypatch):
    import tensorflow as tf

    peaks = {"/device:GPU:0": 5, "/device:GPU:1": 7}
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [SimpleNamespace(name=name) for name in peaks])
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", lambda name: {"current": 1, "peak": peaks[name]})
    assert peak_of_accelerator() == 7
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [])
    assert peak_of_accelerator() is None


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "does not say which of which workers this is"),
        ('{"cluster": {"worker": ["a"]}}', "does not say which of which workers this is"),
        (of_workers(2, 2), "has no worker 2: there are 2"),
        (of_workers(2, 0, kind="evaluator"), "has evaluator tasks"),
        ('{"cluster": {"ps": ["a"], "worker": ["b"]}, "task": {"type": "worker", "index": 0}}', "has ps tasks"),
    ],
)
def test_an_environment_that_names_other_processes_is_refused(config, said, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(OptionError, match=said):
        find_world(None)


def test_devices_that_there_are_not_are_refused(monkeypatch):
    with pytest.raises(OptionError, match="nproc_per_node gpu: TensorFlow sees no GPU"):
        find_world("gpu")
    monkeypatch.setenv("TF_CONFIG", of_workers(2, 0))
    with pytest.raises(OptionError, match="nproc_per_node 2: a process of TF_CONFIG has one device on a CPU"):
        find_world("2")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one device sees."""
    events = []
    folder = tmp_path_factory.mktemp("alone") / "run"
    job = jobs.new_job(TensorFlowBackend(), folder, validation=jobs.new_blocks()[:7], report=events.append, **OPTIONS)
    TensorFlowBackend().train(job)
    return seen(events)


def started(folder, devices, stopped="-", **environment):
    command = [sys.executable, SCRIPT, folder, devices, stopped]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def found(process):
    out, err = process.communicate()
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def assert_same_curve(one, other):
    assert len(one["steps"]) == len(other["steps"]) == 4
    for before, after in zip(one["steps"], other["steps"], strict=True):
        assert after == pytest.approx(before, rel=2e-6)
    assert len(other["scores"]) == (
        2 if True in other["requested"] else 3
    )  # A training that is to stop scores no more.
    for before, after in zip(one["scores"], other["scores"], strict=False):
        assert after == pytest.approx(before, rel=1e-7)


def test_three_devices_of_one_process_make_the_curve_of_one(alone, tmp_path):
    three = found(started(tmp_path, "3", **os.environ))
    assert_same_curve(alone, three)
    assert len(three["bits"]) == 1
    assert three["refused"].startswith("tf jit_compile: XLA")
    assert "model.safetensors" in three["files"]
    assert three["steps of another"] == 4


def test_two_workers_make_it_too_and_agree_on_all(alone, tmp_path):
    ports = free_ports(2)
    hosts = [f"127.0.0.1:{port}" for port in ports]
    configs = [
        json.dumps({"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}) for index in range(2)
    ]
    processes = [started(tmp_path, "-", "1", **{**os.environ, "TF_CONFIG": config}) for config in configs]
    leader, follower = map(found, processes)
    assert_same_curve(alone, leader)
    assert "model.safetensors" in leader.pop("files")
    assert follower.pop("files") == []
    assert leader == follower
    assert leader["requested"] == [False, False, True, True]
    assert "process 1 differs from process 0 in learning_rate" in leader["refused"]


def free_ports(count):
    """Ports that nothing listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
