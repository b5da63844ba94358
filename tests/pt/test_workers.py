"""What the environment says of the processes that work together, and the command that starts them."""

import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from clm_core.backend import ALONE, World
from clm_core.errors import OptionError
from clm_core.launch import mailbox
from clm_pt.backend import PyTorchBackend
from clm_pt.launch import code_of

BACKEND = PyTorchBackend()
WORKER = {"LOCAL_RANK": "1", "RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "first", "MASTER_PORT": "29500"}


@pytest.fixture
def environment(monkeypatch):
    """Sets variables; one that is None is not there."""

    def change(**variables):
        for name, value in variables.items():
            monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)

    change(**dict.fromkeys((*WORKER, "LOCAL_WORLD_SIZE")))
    return change


@pytest.fixture
def gpus(monkeypatch):
    """Has PyTorch find some GPUs."""

    def find(count):
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)

    find(0)
    return find


def test_a_process_that_nobody_else_started_is_alone(environment):
    environment(WORLD_SIZE="1")
    assert BACKEND.world(None) == ALONE


def test_a_worker_is_who_its_launcher_says(environment):
    environment(**WORKER, TORCHELASTIC_RESTART_COUNT="2")
    assert BACKEND.world(None) == World(rank=3, size=4, attempt=2)


@pytest.mark.parametrize("name", ["WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_processes_that_cannot_find_each_other_are_refused(environment, name):
    environment(**{name: "2"})
    with pytest.raises(OptionError, match=f"{name} is 2 and LOCAL_RANK is not set: start with torchrun, or give --npr"):
        BACKEND.world(None)
    assert BACKEND.world("3") == World(size=3)  # They are machines, and workers are to be started on each.


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"])
def test_a_worker_that_is_told_too_little_is_refused(environment, name):
    environment(**{**WORKER, name: None})
    with pytest.raises(OptionError, match=f"LOCAL_RANK is set, .* and {name} is not"):
        BACKEND.world(None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"RANK": "two"}, "RANK is 'two', not a number"),
        ({"RANK": "4"}, "RANK is 4 and WORLD_SIZE is 4"),
        ({"LOCAL_WORLD_SIZE": "2"}, "nproc_per_node 3: the launcher has started 2 processes"),
    ],
)
def test_a_worker_that_is_told_something_else_is_refused(environment, changes, message):
    environment(**{**WORKER, **changes})
    with pytest.raises(OptionError, match=message):
        BACKEND.world("3")


def test_gpu_is_all_gpus(environment, gpus):
    gpus(4)
    assert (BACKEND.world("gpu"), BACKEND.world("2")) == (World(size=4), World(size=2))


def test_more_gpus_than_there_are_are_refused(environment, gpus):
    with pytest.raises(OptionError, match="nproc_per_node gpu: PyTorch finds no GPU here"):
        BACKEND.world("gpu")
    gpus(2)
    with pytest.raises(OptionError, match="nproc_per_node 3: PyTorch finds only 2 GPUs"):
        BACKEND.world("3")


@pytest.mark.parametrize(
    ("arguments", "meeting"),
    [
        ([], ["--standalone"]),
        (["--max-restarts", "2"], ["--standalone"]),
        (["--nnodes=2", "--rdzv-endpoint", "first:29500"], ["--rdzv-backend", "c10d"]),
        (["--nnodes", "2", "--rdzv_backend=etcd-v2"], []),
        (["--nnodes", "2", "--node-rank", "1", "--master-addr", "first"], []),
    ],
)
def test_workers_meet_here_unless_torchrun_is_told_where(environment, gpus, arguments, meeting):
    start = [sys.executable, "-m", "clm_pt.launch", "--nproc-per-node", "2"]
    assert BACKEND.launcher("2", arguments) == [*start, *meeting, *arguments]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--max-restart", "2", "--nod-rank", "0"], "unrecognized arguments: --nod-rank"),
        (["--max-restarts", "many"], "invalid int value: 'many'"),
        (["--nnodes", "two"], "'two'"),
    ],
)
def test_what_torchrun_does_not_take_is_refused_before_anything_is_done(arguments, why, gpus):
    with pytest.raises(OptionError, match=f"^-- {' '.join(arguments)}: torchrun does not take this: .*{why}"):
        BACKEND.launcher("2", arguments)


@pytest.mark.parametrize("again", [["--nproc-per-node", "3"], ["--nproc_per=3"]])
def test_another_number_of_processes_for_torchrun_is_refused(again, gpus):
    assert "--nproc-per-node" in BACKEND.launcher("2", ["--nproc-per-node", "2"])
    with pytest.raises(OptionError, match=f"^-- {' '.join(again)}: nproc_per_node is 2: give the number"):
        BACKEND.launcher("2", again)


def test_workers_meet_where_the_environment_tells_torchrun(environment, gpus):
    environment(PET_NNODES="2", PET_RDZV_BACKEND="c10d")
    assert BACKEND.launcher("2", []) == [sys.executable, "-m", "clm_pt.launch", "--nproc-per-node", "2"]


def test_one_device_and_a_worker_need_no_launcher(environment, gpus):
    assert BACKEND.launcher("1", []) is None
    environment(**WORKER)
    assert BACKEND.launcher("2", []) is None


@pytest.mark.parametrize(("left", "code"), [(None, 70), (mailbox.STOPPED, 0)])
def test_a_machine_that_is_gone_is_a_failure_unless_the_workers_here_were_stopped(left, code, monkeypatch, tmp_path):
    monkeypatch.setenv(mailbox.VARIABLE, str(tmp_path))
    if left:
        mailbox.put(left, "{}")
    nobody = ["--rdzv-endpoint", "127.0.0.1:1", "--rdzv-conf", "is_host=0,read_timeout=1"]
    launcher = BACKEND.launcher("2", ["--nnodes", "2", *nobody])
    assert subprocess.run([*launcher, "-m", "clm_core"], timeout=90).returncode == code
    assert ("--rdzv-endpoint names another" in (mailbox.take(mailbox.ERROR) or "")) == (code == 70)


@pytest.mark.parametrize("first", [0, 1])
def test_the_code_is_that_of_the_process_that_a_signal_killed(first):
    codes = (70, -signal.SIGKILL)
    failures = {rank: SimpleNamespace(exitcode=codes[rank], timestamp=abs(rank - first)) for rank in (0, 1)}
    assert code_of(failures) == 128 + signal.SIGKILL
