"""The faults themselves: what is counted, and what happens at an operation, by the library and by the hooks."""

import errno
import os
import shutil
import signal
import subprocess
import sys

import injection
import pytest
from injection import Fault

WORK = """
import os, pathlib
folder = pathlib.Path("here")
folder.mkdir()
with open("here/a", "wb", buffering=0) as file:
    file.write(b"0123456789")
    os.fsync(file.fileno())
os.rename("here/a", "here/b")
os.remove("here/b")
folder.joinpath("c").touch()
pathlib.Path("elsewhere").touch()
"""
TWICE = """
import os
os.mkdir("here")
for name in ("here/a", "here/b"):
    try:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
        print("goes on")
    except OSError:
        print("fails")
"""
BY_HOOKS = ["mkdir", "create", "fsync", "rename", "remove", "create"]
BY_LIBRARY = ["mkdir", "create", "write", "fsync", "rename", "unlink", "create"]


@pytest.fixture(params=["library", "hooks"])
def by(request, monkeypatch):
    """How the process is told; without a compiler there are the hooks alone."""
    if request.param == "hooks":
        monkeypatch.setattr(injection, "library", lambda: None)
    elif injection.library() is None:
        pytest.skip("there is no C compiler, or this is not Linux")
    return request.param


@pytest.fixture
def work(by, tmp_path):
    """Do some work with files under a fault; returns how it ended, what was counted, and what is there then."""

    def run(fault=injection.NOTHING, script=WORK):
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        shutil.rmtree(tmp_path / "here", ignore_errors=True)
        environment = {**os.environ, **injection.loading(), **fault.environment(tmp_path / "here", log)}
        ended = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, check=False
        )
        left = sorted(path.name for path in (tmp_path / "here").glob("*"))
        return ended, [line.split()[1] for line in log.read_text().splitlines()], left

    return run


def test_what_changes_the_folder_is_counted_and_nothing_else(work, by):
    ended, counted, left = work()
    assert (ended.returncode, counted, left) == (0, BY_LIBRARY if by == "library" else BY_HOOKS, ["c"])


def test_a_killed_process_is_gone_before_its_operation(work, by):
    ended, counted, left = work(Fault("kill", (BY_LIBRARY if by == "library" else BY_HOOKS).index("rename")))
    assert (ended.returncode, counted[-1], left) == (-signal.SIGKILL, "rename", ["a"])


@pytest.mark.parametrize(("always", "printed"), [(False, "fails\ngoes on\n"), (True, "fails\nfails\n")])
def test_an_operation_fails_once_or_all_do_from_then_on(work, always, printed):
    ended, counted, left = work(Fault("error", 1, errno.ENOSPC, always), TWICE)
    assert (ended.stdout.decode(), len(counted), left) == (printed, 3, [] if always else ["b"])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_what_cannot_fail_in_a_way_does_not(work, number):
    _, counted, _ = work()
    possible = [injection.can_fail(operation, number) for operation in counted]
    codes = [work(Fault("error", at, number))[0].returncode for at in range(len(counted))]
    assert [code != 0 for code in codes] == possible


def test_half_of_a_write_is_on_the_disk(work, by, tmp_path):
    if by == "hooks":
        pytest.skip("Python does not tell of a single write")
    ended, _, _ = work(Fault("half", BY_LIBRARY.index("write")))
    assert (ended.returncode, (tmp_path / "here" / "a").read_bytes()) == (-signal.SIGKILL, b"01234")


def test_a_signal_comes_with_an_operation(work):
    assert work(Fault("signal", 1, signal.SIGTERM))[0].returncode == -signal.SIGTERM
